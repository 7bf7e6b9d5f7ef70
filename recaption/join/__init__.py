"""recaption.join: full shards from a captions-only run and the shards it was made from."""

from __future__ import annotations

from recaption.cli.arguments import Parser, take_inputs, take_run

DOES = """\
Makes full shards from RUN, whose shards have captions only (output.mode=captions), and the shards it
was made from: the same bytes that output.mode=full would have published with these captions. Nothing is
captioned. NEW becomes a run directory of its own, for status, verify, filter and report; RUN is only
read. Sources that are damaged, missing or not the ones that were captioned are named and get no shard.
The same command again makes what is missing and adds shards that RUN has published since.
"""
MORE = """\
example: python -m recaption.join outputs/train/tiny/short -o /data/train-recaptioned

Exit code: 0 if every shard of RUN has its counterpart, 1 if one is missing, 2 for a wrong use.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("join", DOES, MORE)
    take_run(parser)
    add = parser.add_argument
    add(
        "-o",
        "--output",
        metavar="NEW",
        required=True,
        help="the new run directory, for the full shards",
    )
    add(
        "--spool",
        metavar="FOLDER",
        help="folder for copies of remote or compressed sources, one per process; default: SLURM_TMPDIR or "
        "the system's temporary folder",
    )
    take_inputs(parser)
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.join.command import join

    return join(options)
