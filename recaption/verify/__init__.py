"""recaption.verify: whether what was published is whole, right, and loads."""

from __future__ import annotations

from recaption.cli.arguments import Parser, take_inputs, take_run

DOES = """\
Re-reads every published shard against its marker: hashes, counts, states, keys and their order,
captions and images. Looks for missing, foreign and left-over files. Then loads shards with
webdataset, with datasets, and by open_clip's rules, and prints the command line to train on them. The
last line says how many of how many shards have no defect, whether the run is unfinished, and how many
samples each loader read. Shards that were given up are named but not counted.
"""
MORE = """\
example: python -m recaption.verify outputs/train/tiny/short --input --complete

JSON: run, shards (total, published, given_up), samples, defects (shard, kind, text), notes, loaders
(result ok, warn, fail or skipped; text; samples), train, sound (shards without a defect), complete, ok.

Exit code: 0 if there is no defect, 1 if there is one, 2 for a wrong use. Loaders' warnings, whose cause
lies in the source, are no defects, and neither are unpublished shards without --complete.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("verify", DOES, MORE)
    take_run(parser)
    add = parser.add_argument
    add(
        "--input",
        action="store_true",
        help="also make every shard again from its source, and compare",
    )
    take_inputs(parser)
    add(
        "--complete",
        action="store_true",
        help="count shards that are not published yet as defects",
    )
    add("--json", action="store_true", help="print one JSON object instead of lines")
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.verify.command import verify

    return verify(options)
