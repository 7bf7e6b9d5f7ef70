"""Prompt texts with per-sample fields: `{caption}`, `{json.FIELD}`, `{captions.NAME}`; `{{` is `{`.

`{json.A.B}` is the field named `A.B`, or else the field B inside A. `{FIELD|WORD}` is replaced by WORD
for samples that lack the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from recaption.config.schema import Prompt
from recaption.errors import SampleError, UserError, bad_value
from recaption.shard.rules import TODAYS, Rules

VALID = "{caption}, {json.FIELD} and {captions.NAME} are filled in, {FIELD|WORD} too; {{ is a brace"
FIELD = re.compile(r"caption|(?:json|captions)\.[^!:]*[^!:.]")
TOKEN = re.compile(r"\{\{|\}\}|\{(?P<field>[^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Field:
    """A field to be filled in, such as `json.A.B`; `word` replaces it in samples that lack it."""

    path: str
    word: str | None = None

    @property
    def source(self) -> str:
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        """Its name in its source; empty for the caption."""
        return self.path.partition(".")[2]


@dataclass(frozen=True)
class Values:
    """A sample's values for the fields of prompts; `caption` is None if it has none."""

    caption: str | None
    json: Mapping[str, Any]
    captions: Mapping[str, str]
    rules: Rules = TODAYS

    def of(self, field: Field) -> Any:
        """The value of a field; None if it is missing."""
        match field.source:
            case "caption":
                return self.caption
            case "json":
                return self.rules.value(self.json, field.name)
            case _:
                return self.captions.get(field.name)


@lru_cache(maxsize=256)
def pieces(text: str, rules: Rules = TODAYS) -> tuple[str | Field, ...]:
    """A prompt's text as a sequence of literal texts and fields; ValueError for a stray brace."""
    found: list[str | Field] = []
    end = 0
    for token in TOKEN.finditer(text):
        found.append(text[end : token.start()])
        end = token.end()
        if token["field"] is not None:
            found.append(Field(*rules.field(token["field"])))
        elif len(token[0]) == 2:
            found.append(token[0][0])
        else:
            raise ValueError(f"a single {token[0]}")
    return (*found, text[end:])


def literals_of(text: str) -> list[str]:
    """The literal texts between a prompt's fields."""
    return [piece for piece in pieces(text) if isinstance(piece, str)]


def fields_of(prompt: Prompt) -> list[Field]:
    """The fields in a prompt's text and system message, checked.

    Raises UserError for braces that do not parse or a field that does not exist.
    """
    found = []
    for key, text in (("prompt.text", prompt.text), ("prompt.system", prompt.system or "")):
        try:
            parsed = pieces(text)
        except ValueError as e:
            raise bad_value(key, text, f"{e}; write {{{{ and }}}} for braces") from None
        for field in parsed:
            if isinstance(field, Field):
                if not FIELD.fullmatch(field.path):
                    raise bad_value(key, f"…{{{field.path}}}…", VALID)
                found.append(field)
    return found


def has_fields(prompt: Prompt) -> bool:
    """Whether a prompt, which was checked before, has fields."""
    return bool(fields_of(prompt))


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Check every prompt's fields; `{captions.NAME}` must name an earlier one of the list."""
    earlier: set[str] = set()
    for prompt in prompts:
        for field in fields_of(prompt):
            if field.source == "captions" and field.name not in earlier:
                valid = f"names no earlier prompt; prompts={[p.name for p in prompts]}"
                raise UserError(f"prompt {prompt.name}: {{{field.path}}} {valid}")
        if prompt.name in earlier:
            raise bad_value("prompts", [p.name for p in prompts], "names must differ")
        earlier.add(prompt.name)


def fill(text: str, values: Values, clean: Callable[[str], str], longest: int | None = None) -> str:
    """The text with its fields filled in, each cut to `longest` characters.

    `clean` removes the model's special tokens from a value. Raises SampleError when the sample lacks a
    field.
    """
    filled = []
    for piece in pieces(text, values.rules):
        if isinstance(piece, Field):
            value = clean(_value(piece, values))
            filled.append(value if longest is None else _cut(value, longest))
        else:
            filled.append(piece)
    return "".join(filled)


def _cut(value: str, longest: int) -> str:
    return value if len(value) <= longest else value[:longest].rstrip()


def _value(field: Field, values: Values) -> str:
    value = values.of(field)
    if value is None:
        value = field.word
    if value is None:
        raise SampleError(f"prompt field {{{field.path}}} is missing in this sample")
    return value if isinstance(value, str) else str(value)
