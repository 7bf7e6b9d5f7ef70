"""recaption.bench: the engine alone, the whole pipeline and a plain baseline, in one run."""

from __future__ import annotations

import argparse
import re

from recaption.bench.measured import SERVER
from recaption.cli.arguments import Parser, take_presets, take_words, whole

LEAST, MOST = 8, 16384  # pixels of a side
PARTS = ("engine", "pipeline", "baseline")
DOES = """\
Measures the engine alone, the pipeline from tar to published tar, and a plain baseline on the same drawn
pictures, and projects the time for a whole data set.
"""
MORE = """\
example: python -m recaption.bench model=qwen2.5-vl-7b prompt=detailed --images 4000 --size 1024x768

Exit code: 0 when all was measured, 1 when something failed, 2 for a wrong use.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("bench", DOES, MORE)
    take_words(parser, "model=qwen2.5-vl-7b")
    add = parser.add_argument
    count = whole(1)
    add("--images", metavar="N", type=count, default=2000, help="pictures per part (%(default)s)")
    add("--shards", metavar="N", type=count, default=8, help="shards that hold them (%(default)s)")
    add(
        "--size",
        metavar="WIDTHxHEIGHT",
        type=_size,
        default="640x480",
        help="size of the pictures in pixels (%(default)s)",
    )
    add(
        "--parts",
        type=_parts,
        default=",".join(PARTS),
        help="which to measure (%(default)s); server: `vllm serve` with its defaults and an "
        "asynchronous client, on the same pictures",
    )
    add(
        "--baseline-images",
        metavar="N",
        type=count,
        help="pictures for the baseline; by default a third of the others",
    )
    add(
        "--for-images",
        metavar="N",
        type=count,
        default=100_000_000,
        help="pictures of the data set whose time is projected (%(default)s)",
    )
    add(
        "--for-gpus",
        metavar="N",
        type=count,
        default=64,
        help="GPUs for which the time is projected (%(default)s)",
    )
    add("--json", metavar="FILE", help="write the figures to this file, too")
    add(
        "--folder",
        metavar="DIR",
        help="keep the pictures in shards/ and each run in a new folder here; by default all is in "
        "a temporary folder, which is removed",
    )
    take_presets(parser)
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.bench.command import bench

    return bench(options)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text, re.ASCII)
    if not match or not all(LEAST <= int(side) <= MOST for side in match.groups()):
        reason = f"use WIDTHxHEIGHT, such as 640x480, with sides of {LEAST} to {MOST} pixels"
        raise argparse.ArgumentTypeError(f"{text}: {reason}")
    return int(match[1]), int(match[2])


def _parts(text: str) -> list[str]:
    parts, choices = text.split(","), [*PARTS, SERVER]
    if unknown := [part for part in parts if part not in choices]:
        reason = f"valid choices are {', '.join(choices)}, with commas between them"
        raise argparse.ArgumentTypeError(f"{unknown[0]}: {reason}")
    return parts
