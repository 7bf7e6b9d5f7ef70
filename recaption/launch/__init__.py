"""recaption.launch: composes, checks, plans and freezes a run, and submits its tasks."""

from __future__ import annotations

from recaption.cli.arguments import Parser, take_presets, take_primary, take_words

DOES = """\
Recaptions WebDataset shards: on this machine (slurm=local, the default) or as a Slurm array.
Give the same command again to go on with an unfinished run; for a finished run it does nothing.

  python -m recaption.launch data.shards='/data/{00000..00007}.tar'          the tiny model, here
  python -m recaption.launch data.shards='/data/*.tar' model=qwen2.5-vl-7b prompt=detailed
  python -m recaption.launch … slurm=cluster slurm.tasks=32 slurm.partition=gpu
  python -m recaption.launch -m … prompt=short,detailed model=qwen3-vl-2b,qwen3-vl-4b
  python -m recaption.launch … dry_run=true                                  what would happen
"""
SHOWN = ("job", "all")


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("launch", DOES, _keys)
    take_words(parser, "data.shards=…; all of them are listed below")
    add = parser.add_argument
    add(
        "-m",
        "--multirun",
        action="store_true",
        help="sweep: make one run per combination of comma-separated values",
    )
    add(
        "-c",
        "--cfg",
        choices=SHOWN,
        help="print the composed configuration, as every Hydra app does, and do nothing else",
    )
    add("--resolve", action="store_true", help="with --cfg, fill in what refers to other keys")
    take_presets(parser)
    take_primary(parser)
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.launch.command import launch

    return launch(options)


def _keys() -> str:
    from recaption.launch.help import keys_help

    return keys_help()
