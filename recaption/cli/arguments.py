"""Arguments of the commands that make a new run from one: RUN, options with values, `-o NEW`."""

from __future__ import annotations

from collections.abc import Sequence

from recaption.config.check import check_folder
from recaption.errors import UserError, bad_choice


def parse(
    command: str, arguments: Sequence[str], valued: Sequence[str], flags: Sequence[str] = ()
) -> tuple[str, dict[str, str], set[str]]:
    """The run directory, the values of `-o` and the `valued` options, and the `flags` that are set.

    Values are `NAME VALUE` or `NAME=VALUE`. Raises UserError for anything else.
    """
    given: dict[str, str] = {}
    found: set[str] = set()
    roots = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        name = "-o" if name == "--output" else name
        if name in (*valued, "-o"):
            if name in given:
                raise UserError(f"{name}: given twice")
            following = value if equals else next(rest, None)
            if not following:
                raise UserError(f"{name}: needs a value")
            if name == "-o":
                check_folder("-o", following)
            given[name] = following
        elif argument in flags:
            found.add(argument)
        elif argument.startswith("-"):
            raise bad_choice("option", argument, ["--help", *valued, *flags, "-o"])
        else:
            roots.append(argument)
    if len(roots) != 1:
        raise UserError(f"{command}: needs one run directory, given: {', '.join(roots) or 'none'}")
    return roots[0], given, found
