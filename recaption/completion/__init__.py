"""recaption.completion: prints a script that lets a shell complete recaption's arguments."""

from __future__ import annotations

from recaption.cli.arguments import Parser

SHELLS = ("bash", "fish")
DOES = """\
Prints a script that lets the shell complete recaption's commands, launch's keys, and the values of keys
that have choices: presets (model=, prompt=, slurm=, …; those of --config-dir too) and names. Print it
again after an update of recaption.
"""
MORE = """\
examples:
  eval "$(recaption completion bash)"                                     in ~/.bashrc, or
  recaption completion bash >~/.local/share/bash-completion/completions/recaption
  recaption completion fish >~/.config/fish/completions/recaption.fish

Exit code: 0 when the script is printed, 2 for a wrong use.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("completion", DOES, MORE)
    about = f"the shell: {', '.join(SHELLS)}"
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=about)
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.completion.command import complete

    return complete(options)
