"""Every column of a sidecar: its type, where its value comes from, and its name for each prompt.

All code that writes, reads or checks columns uses this module. A new column of every answer is a line in
ANSWER. One in FIXED needs a condition on the run as well, since sidecars that exist do not have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from recaption.run.record import Run

SCORE = "_score"
TEXT, WHOLE, REAL = "string", "int32", "float32"  # as pyarrow calls them
EVENT, SOURCE, FACTS, PROMPT = "event", "source", "facts", "prompt"


@dataclass(frozen=True)
class Column:
    """One column; `origin` says where its value comes from.

    EVENT   what a journal's event says of every sample
    SOURCE  the sample in the source
    FACTS   what was found out about its picture, by the column's name
    PROMPT  the answer to `prompt`, where it is called `part`
    """

    name: str
    type: str
    origin: str
    nothing: Any = None  # the value where a fact or an answer is missing
    field: str = ""  # its field in the sample's .json; '' if it is in rows only
    part: str = ""
    prompt: str = ""


def _answer(part: str, type_: str, nothing: Any, field: str = "") -> Column:
    return Column(part, type_, PROMPT, nothing, field, part)


CAPTION = _answer("caption", TEXT, "", "caption")
FINISH_REASON = _answer("finish_reason", TEXT, "", "recaption_finish_reason")
TOKENS = _answer("tokens", WHOLE, 0)
FLAGS = _answer("flags", TEXT, "", "recaption_flags")
ANSWER = (CAPTION, FINISH_REASON, TOKENS, FLAGS)
WATERMARK = Column("watermark_score", REAL, FACTS)
FIXED = (
    Column("key", TEXT, EVENT),
    Column("index", WHOLE, EVENT),
    Column("status", TEXT, EVENT),
    Column("reason", TEXT, EVENT),
    CAPTION,
    Column("caption_original", TEXT, SOURCE),
    FINISH_REASON,
    TOKENS,
    FLAGS,
    WATERMARK,
    Column("width", WHOLE, FACTS),
    Column("height", WHOLE, FACTS),
    Column("image_hash", TEXT, FACTS),
    Column("tries", WHOLE, EVENT),
    Column("strikes", WHOLE, EVENT),
    Column("attempt", TEXT, EVENT),
    Column("attempts", TEXT, FACTS, ""),
)


@dataclass(frozen=True)
class Columns:
    """The columns of a run with these prompts and score columns."""

    prompts: tuple[str, ...]
    scores: tuple[str, ...] = ()

    def called(self, name: str, prompt: str) -> str:
        """The name of a prompt's column: NAME, or NAME_PROMPT if there are several prompts."""
        return name if len(self.prompts) == 1 else f"{name}_{prompt}"

    def of(self, prompt: str) -> dict[str, str]:
        """The names of the columns of one prompt's answer: caption → caption_NAME, …"""
        return {c.part: c.name for c in self.answers if c.prompt == prompt}

    @cached_property
    def all(self) -> tuple[Column, ...]:
        """All columns in the order of writing; those without a NAME are the first prompt's."""
        return tuple(self._all())

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.all)

    @cached_property
    def facts(self) -> tuple[Column, ...]:
        return tuple(c for c in self.all if c.origin == FACTS)

    @cached_property
    def answers(self) -> tuple[Column, ...]:
        return tuple(c for c in self.all if c.origin == PROMPT)

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """The columns with flags, one for each prompt."""
        return tuple(self.of(prompt)[FLAGS.name] for prompt in self.prompts)

    def answered(self, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The values of a row's columns for the answers to the prompts."""
        return {c.name: answers.get(c.prompt, {}).get(c.part, c.nothing) for c in self.answers}

    def answers_in(self, row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The answers that a row was made from; the inverse of `answered`."""
        return {p: {part: row[name] for part, name in self.of(p).items()} for p in self.prompts}

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a sample's `.json` about its answers."""
        return {c.field: row[c.name] for c in self.answers if c.field}

    def hidden(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with the columns empty that a sample's `.json` would show of its answers."""
        return {**row, **{c.name: c.nothing for c in self.answers if c.field}}

    def _all(self) -> Iterator[Column]:
        for column in FIXED:
            yield replace(column, prompt=self.prompts[0]) if column in ANSWER else column
        yield from (Column(n, REAL, FACTS) for n in self.scores if n != WATERMARK.name)
        for prompt in self.prompts if len(self.prompts) > 1 else ():
            for c in ANSWER:
                name, field = (v and self.called(v, prompt) for v in (c.name, c.field))
                yield replace(c, name=name, field=field, prompt=prompt)


def columns_of(run: Run) -> Columns:
    """The columns of a run's sidecars."""
    covered = run.identity
    scorers = (["watermark"] if covered["watermark"] != "off" else []) + [*covered["scorers"]]
    return Columns(tuple(p.name for p in run.prompts), tuple(map(score_column, scorers)))


def score_column(scorer: str) -> str:
    """The name of the column, and of the field in `.json`, with a scorer's score."""
    return f"{scorer}{SCORE}"


def split_flags(flags: str | None) -> list[str]:
    """The flags in a value of a flags column."""
    return [flag for flag in (flags or "").split(",") if flag]
