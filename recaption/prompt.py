"""Prompt texts with per-sample fields: `{caption}`, `{json.FIELD}`, `{captions.NAME}`; `{{` is `{`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from recaption.config.schema import Prompt
from recaption.errors import SampleError, UserError, bad_value


@dataclass(frozen=True)
class Values:
    """What a sample offers to a prompt's fields; `caption` is None where it has none."""

    caption: str | None
    json: Mapping[str, Any]
    captions: Mapping[str, str]


def fields_of(prompt: Prompt) -> list[str]:
    """Names of the fields in a prompt's text and system message, checked.

    Raises UserError for braces that do not parse or a field that does not exist.
    """
    names = []
    for key, text in (("prompt.text", prompt.text), ("prompt.system", prompt.system or "")):
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as e:
            raise bad_value(key, text, f"{e}; write {{{{ and }}}} for braces") from None
        for _, name, spec, conversion in parsed:
            if name is None:
                continue
            known = name == "caption" or name.startswith(("json.", "captions."))
            if not known or name.endswith(".") or spec or conversion:
                valid = "{caption}, {json.FIELD} and {captions.NAME} are filled in; {{ is a brace"
                raise bad_value(key, f"…{{{name}}}…", valid)
            names.append(name)
    return names


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Check every prompt's fields; `{captions.NAME}` must name an earlier one of the list."""
    earlier: set[str] = set()
    for prompt in prompts:
        for name in fields_of(prompt):
            source, _, other = name.partition(".")
            if source == "captions" and other not in earlier:
                valid = f"names no earlier prompt; prompts={[p.name for p in prompts]}"
                raise UserError(f"prompt {prompt.name}: {{{name}}} {valid}")
        if prompt.name in earlier:
            raise bad_value("prompts", [p.name for p in prompts], "names must differ")
        earlier.add(prompt.name)


def fill(text: str, values: Values, clean: Callable[[str], str]) -> str:
    """The text with its fields filled in; `clean` makes a foreign value harmless to the model.

    Raises SampleError when the sample lacks a field.
    """
    pieces = []
    for literal, name, _, _ in Formatter().parse(text):
        pieces.append(literal)
        if name is not None:
            pieces.append(clean(_value(name, values)))
    return "".join(pieces)


def _value(name: str, values: Values) -> str:
    source, _, rest = name.partition(".")
    if source == "caption":
        value: Any = values.caption
    else:
        value = (values.json if source == "json" else values.captions).get(rest)
    if value is None:
        raise SampleError(f"prompt field {{{name}}} is missing in this sample")
    return value if isinstance(value, str) else str(value)
