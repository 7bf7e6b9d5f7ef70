"""recaption.demo: recaption four small shards with the tiny model."""

from __future__ import annotations

from recaption.cli.arguments import Parser, take_words

DOES = """\
Draws four small shards and recaptions them with the tiny model, all on this machine. If it is run again,
it only shows the captions.
"""
MORE = """\
example: python -m recaption.demo /tmp/demo prompt=detailed
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("demo", DOES, MORE)
    about = "folder for shards and captions (demo)"
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help=about)
    take_words(parser, "watermark=onnx watermark.path=MODEL.onnx")
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.demo.command import demo

    return demo(options)
