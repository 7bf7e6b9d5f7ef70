"""The command: everything that can be completed, and the script that does it without Python."""

from __future__ import annotations

from argparse import Namespace
from string import Template
from typing import Any

from recaption.__main__ import COMMANDS, parser_of
from recaption.cli.arguments import WORDS
from recaption.completion import bash, fish
from recaption.config.compose import conf_dir
from recaption.config.schema_walk import documented

TEMPLATES: dict[str, Any] = {"bash": bash, "fish": fish}


def complete(options: Namespace) -> int:
    """Print the script for the shell that was named."""
    print(script(options.shell), end="")
    return 0


def script(shell: str) -> str:
    """The script for a shell."""
    template = TEMPLATES[shell]
    parsers = {name: parser_of(name) for name in COMMANDS}
    choices = {key.name: key.choices for key in documented()}
    groups = [path.name for path in sorted(conf_dir().iterdir()) if path.is_dir()]
    for group in groups:
        choices[group] = [path.stem for path in sorted((conf_dir() / group).glob("*.yaml"))]
    keyed = [name for name, parser in parsers.items() if WORDS in parser.takes]
    placed = [name for name in keyed if {"RUN", "FOLDER"} & parsers[name].takes.keys()]

    def cases(words: dict[str, list[str]]) -> str:
        given = {name: " ".join(found) for name, found in words.items() if found}
        return "\n".join(template.CASE.format(name=n, words=w) for n, w in given.items())

    return Template(template.SCRIPT).substitute(
        commands=" ".join(COMMANDS),
        shells=" ".join(TEMPLATES),
        keyed=template.OR.join(keyed),
        placed=template.OR.join(placed),
        keys=" ".join(f"{key}=" for key in sorted(choices)),
        groups=template.OR.join(groups),
        options=cases({name: sorted(parser.flags) for name, parser in parsers.items()}),
        choices=cases(dict(sorted(choices.items()))),
    )
