"""recaption.retry: resubmits what a run lacks, or does some samples again in a new run."""

from __future__ import annotations

from typing import Any

from recaption.cli.arguments import Parser, take_inputs, take_presets, take_words

USAGE = """\
%(prog)s RUN [KEY=VALUE …] [--config-dir DIR] [--inputs PATTERN]
       %(prog)s RUN [--status STATE …] [--reason TEXT …] -o NEW [KEY=VALUE …]
       %(prog)s RUN --give-up SHARD … | --take-back SHARD …"""
DOES = """\
Submits a run's missing shards again, with the configuration of its last submission. Keys outside the
fingerprint may change (slurm.*, task.*, engine batch sizes, data.range, wait, …); a group such as
slurm=mysite replaces its whole section, and that of task.*. Without data.range, every shard that was ever
selected and has no marker is submitted. slurm.setup and slurm.additional are never stored, since they may
hold secrets: where they were used, name their preset again, or give them as slurm.setup=[…].

With --status or --reason, a new run NEW is made, in which the samples of that state or reason are done
again, with KEY=VALUE; all other samples keep their rows. Published shards of RUN without such samples are
hard-linked. Shards that RUN has not published are left for a later retry of NEW. RUN is only read.

A shard that cannot be made keeps a run unfinished. data.damaged=salvage captions the intact samples of a
damaged shard; --give-up settles the run without the shard and submits nothing.
"""
MORE = """\
--status, --reason, --give-up and --take-back take several values, and may be repeated.

examples:
  python -m recaption.retry RUN slurm.time=12:00:00
  python -m recaption.retry RUN --status rejected --reason pixels -o NEW image.max_source_pixels=200000000
  python -m recaption.retry RUN --give-up 00017.tar

Exit code: 0 if shards were submitted or settled, or, if it waits, all are published; 1 if something is
missing; 2 for a wrong use, such as a key inside the fingerprint.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("retry", DOES, MORE)
    parser.usage = USAGE
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN", help="a run directory")
    take_words(parser, "slurm.time=12:00:00")
    several: dict[str, Any] = {"action": "append", "nargs": "+", "default": []}
    add(
        "--status",
        metavar="STATE",
        help="samples that are captioned, filtered, rejected or failed",
        **several,
    )
    add(
        "--reason",
        metavar="TEXT",
        help="samples whose reason contains TEXT (in any case)",
        **several,
    )
    add("-o", "--output", metavar="NEW", help="the new run's directory")
    add(
        "--give-up",
        metavar="SHARD",
        help="mark a shard, by its name or input, as given up: it has no tar, and every command "
        "passes over it by name",
        **several,
    )
    add("--take-back", metavar="SHARD", help="undo that: the shard is missing again", **several)
    take_presets(parser)
    take_inputs(parser)
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.retry.command import retry

    return retry(options)
