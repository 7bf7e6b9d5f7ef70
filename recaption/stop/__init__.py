"""recaption.stop: end what works on a run; it keeps what it has made."""

from __future__ import annotations

from recaption.cli.arguments import Parser, take_run

DOES = """\
Cancels the queued and running jobs of every submission of RUN, and ends its tasks on this machine.
Finished captions are kept: the same launch, or recaption.retry, continues from there.
"""
MORE = """\
example: python -m recaption.stop outputs/train/tiny/short

Exit code: 0 when nothing works on the run any more, 1 when something still does, 2 for a wrong use.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("stop", DOES, MORE)
    take_run(parser)
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.stop.command import stop

    return stop(options)
