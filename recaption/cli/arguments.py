"""Parsers of the commands' arguments: argparse, with mistakes reported as a UserError of one line.

Each command's package has `parser()`, which imports only this module, and `main(arguments)`, which
imports the command itself once its arguments are valid.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from recaption.errors import UserError, bad_choice

WORDS = "KEY=VALUE"
REQUIRED = "the following arguments are required: "


class Parser(argparse.ArgumentParser):
    """The arguments of `recaption COMMAND`, in any order.

    `more` is the text that --help prints after the options, or a function that makes it.
    """

    def __init__(self, command: str, does: str, more: str | Callable[[], str] = "") -> None:
        super().__init__(
            prog=f"python -m recaption.{command}",
            description=does,
            allow_abbrev=False,
            formatter_class=_formatter,
        )
        self.command, self.more = command, more
        self.register("action", None, _Once)
        self.register("type", None, _filled)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The values of all arguments; UserError for a mistake, SystemExit after --help."""
        arguments = list(self._joined(arguments))
        for argument in takewhile(lambda given: given != "--", arguments):
            names = {argument.partition("=")[0], argument[:2]}
            if argument[:1] == "-" != argument and " " not in argument and not names & self.flags:
                raise bad_choice("option", argument, self.flags)
        if "--" in arguments and WORDS not in self.takes:
            return self.parse_args(arguments)  # the other one forgets `--`
        return self.parse_intermixed_args(arguments)

    def _joined(self, arguments: Sequence[str]) -> Iterator[str]:
        """Arguments with values that look like an option joined to theirs: --where=-tokens<-5."""
        following = iter(arguments)
        for argument in following:
            option = self._option_string_actions.get(argument)
            value = next(following, None) if option and option.nargs is None else None
            if value is None:
                yield argument
            elif value[:1] == "-" and value.partition("=")[0] not in {"-", "--", *self.flags}:
                yield f"{argument}={value}"
            else:
                yield from (argument, value)
            if "--" in (argument, value):
                yield from following

    @property
    def flags(self) -> set[str]:
        """Every option, by each of its names."""
        return {name for action in self._actions for name in action.option_strings}

    @property
    def takes(self) -> dict[str, argparse.Action]:
        """Every argument, by all of its names together, such as `-o/--output`."""
        return {"/".join(a.option_strings) or str(a.metavar): a for a in self._actions}

    def format_help(self) -> str:
        """argparse's help, followed by `more`."""
        more = self.more() if callable(self.more) else self.more
        return f"{super().format_help()}\n{more}" if more else super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise one line that names the argument."""
        text = re.sub(r"^argument (\S+): ", r"\1: ", message)
        if message.startswith(REQUIRED):
            first = message.removeprefix(REQUIRED).split(", ")[0]
            text = f"{first}: needed, {self.takes[first].help}"
        raise UserError(f"{self.command}: {text} (see --help)")


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=100)


class _Once(argparse.Action):
    """Stores a value, and refuses a second one, which argparse would let replace the first."""

    stored_in: argparse.Namespace | None = None

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if option_string and self.stored_in is namespace:
            raise argparse.ArgumentError(self, "given twice")
        setattr(namespace, self.dest, values)
        self.stored_in = namespace


def _filled(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("needs a value, and this one is empty")
    return text


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an option that takes a whole number, from `low` to `high`."""

    def number(text: str) -> int:
        within = text.isascii() and text.isdigit() and low <= int(text) <= (high or int(text))
        if not within:
            reach = f"from {low} to {high}" if high else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"{text}: use a whole number {reach}")
        return int(text)

    return number


def seconds(most: int) -> Callable[[str], float]:
    """The type of an option that takes seconds, at most `most`."""

    def number(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = -1.0
        if not 0 <= found <= most:
            raise argparse.ArgumentTypeError(f"{text}: use a number of seconds from 0 to {most}")
        return found

    return number


def take_run(parser: Parser) -> None:
    """Add the argument for one run directory."""
    parser.add_argument("run", metavar="RUN", help="a run directory")


def take_words(parser: Parser, example: str) -> None:
    """Add the launcher's KEY=VALUE words."""
    about = f"the launcher's keys, such as {example}"
    parser.add_argument("words", nargs="*", metavar=WORDS, help=about)


def split_words(*given: str | None) -> tuple[list[str], list[str]]:
    """Separate other arguments from KEY=VALUE words, which may stand among them."""
    there = [word for word in given if word is not None]
    words = [word for word in there if re.match(r"~|[^=/]*=", word)]
    return [word for word in there if word not in words], words


def take_presets(parser: Parser) -> None:
    """Add --config-dir, a folder with presets of the user's."""
    about = "a folder with presets of your own, such as DIR/slurm/mysite.yaml"
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help=about)


def take_inputs(parser: Parser, runs: str = "run the commands of pipe: sources again") -> None:
    """Add --inputs and --allow-pipe, for reading a run's sources where they are now."""
    parser.add_argument(
        "--inputs",
        metavar="PATTERN",
        help="the pattern given as data.shards, if the inputs have moved, or if the run does not store "
        "their addresses because they are signed URLs or commands",
    )
    parser.add_argument("--allow-pipe", action="store_true", help=runs)


def take_primary(parser: Parser) -> None:
    """Add --config-name, another primary configuration."""
    about = "another primary configuration than `config`"
    parser.add_argument("-cn", "--config-name", metavar="NAME", default="config", help=about)
