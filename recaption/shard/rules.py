"""The rules of a run: how a sample's texts are read, and which members belong to it.

A run keeps the rules that it began with, and so do runs made from it. Each class here is one version
of the rules, numbered by `run.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recaption.shard import text
from recaption.shard.samples import Sample

SEVERAL, LONG = 6, 40  # extensions that a reason lists, and characters of each


class Rules:
    """Today's."""

    links = True  # a hard link to an earlier member of the tar is that member
    cuts = True  # a prompt's fields are cut to the room that the context leaves

    def decode(self, content: bytes) -> str:
        """The text of a sample's caption file."""
        return text.decode(content)

    def fields(self, content: bytes) -> dict[str, Any]:
        """The fields of a sample's JSON."""
        return text.parse_json(content)

    def value(self, fields: Mapping[str, Any], name: str) -> Any:
        """A field of the JSON by its name; None if it is missing."""
        return text.lookup(fields, name)

    def field(self, written: str) -> tuple[str, str | None]:
        """A field of a prompt as it is written in braces: its path, and the word in its place."""
        path, bar, word = written.partition("|")
        return path, word if bar else None

    def caption(self, value: Any) -> str | None:
        """The caption in the JSON: the field's text, or the first of a list of texts."""
        if isinstance(value, list) and value:
            value = value[0]
        return text.clean(value) if isinstance(value, str) else None

    def kept(self, content: bytes | None, caption: str) -> bytes:
        """The original caption as a file: the source's own bytes where it has them."""
        return caption.encode("utf-8", "replace") if content is None else content

    def no_picture(self, sample: Sample, image_keys: Sequence[str]) -> str:
        """The reason for a sample without a picture; names what it has, as keys end at the first dot."""
        there = sorted({m.extension.lower()[:LONG] for m in sample.members})
        named = ", ".join(there[:SEVERAL]) + ", …" * (len(there) > SEVERAL)
        return f"no image member ({', '.join(image_keys)}); it has {named}"


class FirstRules(Rules):
    """The rules of 0.1.0."""

    links = False
    cuts = False

    def decode(self, content: bytes) -> str:
        return content.decode("utf-8", "replace")

    def fields(self, content: bytes) -> dict[str, Any]:
        return text.json_fields(self.decode(content), strict=True)

    def value(self, fields: Mapping[str, Any], name: str) -> Any:
        return fields.get(name)

    def field(self, written: str) -> tuple[str, str | None]:
        return written, None

    def caption(self, value: Any) -> str | None:
        return text.clean(value) if isinstance(value, str) else None

    def kept(self, content: bytes | None, caption: str) -> bytes:
        return caption.encode("utf-8", "replace")

    def no_picture(self, sample: Sample, image_keys: Sequence[str]) -> str:
        return f"no image member ({', '.join(image_keys)})"


TODAYS = Rules()
BY_NUMBER: Mapping[int, Rules] = {1: FirstRules(), 2: TODAYS}


@dataclass(frozen=True)
class Texts:
    """Where samples have their original caption, and the rules by which it is read."""

    text_key: str
    caption_key: str
    rules: int

    @property
    def by(self) -> Rules:
        return BY_NUMBER[self.rules]


@dataclass(frozen=True)
class Original:
    """A sample's original caption and fields; `caption` is None if it has none."""

    caption: str | None
    kept: bytes  # the caption as the content of a file
    fields: dict[str, Any]

    @property
    def text(self) -> str:
        return self.caption or ""
