"""recaption.filter: a new run from the samples of another that fulfill an expression."""

from __future__ import annotations

from recaption.cli.arguments import Parser, take_run

DOES = """\
Makes the run NEW from RUN: captioned samples that do not fulfill the expression become `filtered` and
are left out of their shards. Nothing is captioned, and neither sources nor a GPU are needed. Shards that
lose no sample are hard-linked. RUN is only read. The same command again continues where it stopped and
adds shards that RUN has published since.
"""
MORE = """\
examples:
  python -m recaption.filter RUN --where "watermark_score < 0.5 and not truncated" -o NEW
  python -m recaption.filter RUN --where "len(caption) >= 20 and finish_reason == 'stop'" -o NEW

Names: columns of the sidecars (key, caption, caption_original, finish_reason, flags, tokens, width, height,
tries, …; with several prompts caption_NAME, …; NAME_score where scored), min_side, and true or false:
{flags} (with several prompts, of any of them; truncated_NAME of one).
Language: == != < <= > >= in, and or not, + - * / of numbers, parentheses, ['lists', 'of texts'],
len(TEXT), words(TEXT), lower(TEXT). An unknown name is an error that lists the valid ones.

Exit code: 0 if every shard of RUN has its counterpart, 1 if RUN lacks some, 2 for a wrong use.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("filter", DOES, _more)
    take_run(parser)
    add = parser.add_argument
    add(
        "--where",
        metavar="EXPRESSION",
        required=True,
        help="the expression that samples have to fulfill to be kept",
    )
    add("-o", "--output", metavar="NEW", required=True, help="a directory for the new run")
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.filter.command import filter_run

    return filter_run(options)


def _more() -> str:
    from recaption.config.schema import FLAGS

    return MORE.format(flags=", ".join(FLAGS))
