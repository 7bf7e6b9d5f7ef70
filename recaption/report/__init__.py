"""recaption.report: runs as one page: pictures, captions side by side, statistics."""

from __future__ import annotations

import argparse

from recaption.cli.arguments import Parser, take_inputs, whole
from recaption.report.limits import MOST_SAMPLES, ROWS, SAMPLES, SHARDS

ALL = "all"
DOES = """\
Writes one HTML file that needs nothing else: counts, throughput over time, histograms of caption
lengths, tokens and scores, flags, reasons of failures, and a gallery of pictures with old and new
captions. Several runs, and several prompts of one run, become columns beside the same pictures,
joined by input shard and key. RUN may still be at work; it is only read.
"""
MORE = """\
example: python -m recaption.report outputs/train/tiny/short outputs/train/tiny/detailed -o report.html

Counts of shards and samples by state, and throughput, are exact, since they come from the tasks' logs
(reasons: the five most frequent ones of each shard). Flags and histograms count every row of the shards
that are read. If not all are read, they are chosen by a hash of their URL, so that every call reads the
same ones, and the page says how many they are.

The gallery shows first the worst samples of every kind (states without a caption, combinations of
flags), then the shortest and longest captions and the lowest and highest scores, then samples chosen
by a hash. The same runs give the same gallery.

Exit code: 0 when the page is written, 2 for a wrong use.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("report", DOES, MORE)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run directory; several are shown side by side")
    add(
        "-o",
        "--output",
        metavar="FILE.html",
        required=True,
        help="the HTML file to write; an existing file is replaced",
    )
    add(
        "--samples",
        metavar="N",
        type=whole(1, MOST_SAMPLES),
        default=SAMPLES,
        help=f"pictures in the gallery, 1 to {MOST_SAMPLES}; default %(default)s: at most about 8 MB",
    )
    add(
        "--shards",
        metavar="N",
        type=_shards,
        default=SHARDS,
        help="read the rows of at most N published shards, of all runs together; all: of every one "
        f"(a second per 2,000 small ones); default %(default)s, and no more than {ROWS:,} rows",
    )
    add(
        "--fetch",
        action="store_true",
        help="fetch remote shards whole for pictures that no published shard holds",
    )
    take_inputs(parser, "with --fetch, also run the commands of pipe: shards")
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.report.command import report

    return report(options)


def _shards(text: str) -> int | None:
    """None: all."""
    try:
        return None if text == ALL else whole(1)(text)
    except argparse.ArgumentTypeError as e:
        raise argparse.ArgumentTypeError(f"{e}, or {ALL}") from None
