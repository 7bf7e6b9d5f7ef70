"""Walks the schema's dataclasses: every key of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from recaption.config.schema import Config

FAKE = "engine=fake"


@dataclass(frozen=True)
class Key:
    """A key: its name as users write it, the place of its value, and its field in the schema."""

    name: str
    path: tuple[str, ...]  # attribute names from the walked dataclass to the value
    type: Any
    field: dataclasses.Field[Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.field.metadata

    @property
    def section(self) -> str:
        """The section it is listed in: its name up to the last dot, or the only engine that has it."""
        return FAKE if self.metadata.get("fake") else self.name.rpartition(".")[0]

    @property
    def by_preset(self) -> bool:
        """Whether choosing a preset sets it, as engine=fake does."""
        return self.field.name == "kind"

    @property
    def mapping(self) -> bool:
        """Whether its value is a free mapping, below which any key may stand."""
        return any(get_origin(kind) is dict for kind in (self.type, *get_args(self.type)))

    @property
    def choices(self) -> list[str]:
        """The values it allows, except for the empty one; none if there are too many to list."""
        if bool in (self.type, *get_args(self.type)):
            return ["true", "false"]
        return [str(choice) for choice in self.metadata.get("choices", ()) if choice]

    @property
    def doc(self) -> str:
        """Its documentation, with its valid values if the text does not name them all."""
        text: str = self.metadata["doc"]
        limited = "choices" in self.metadata and not all(word in text for word in self.choices)
        return f"{text} One of {', '.join(self.choices)}." if limited else text

    @property
    def default(self) -> str:
        """Its default as a user would write it; … if it has none."""
        factory = self.field.default_factory
        value = self.field.default if factory is dataclasses.MISSING else factory()
        if value == MISSING:
            return "…"
        if value is None:
            return "null"
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return f"[{','.join(map(str, value))}]"
        return str(value) if value != "" else "''"

    def owner(self, node: Any) -> Any:
        """The dataclass that has it as a field, within the walked dataclass's instance `node`."""
        return reduce(getattr, self.path[:-1], node)


def walk(node: type[Any] = Config, prefix: str = "", path: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key below a dataclass of the schema, in its order."""
    hints = get_type_hints(node)
    for field in dataclasses.fields(node):
        name = f"{prefix}{field.name.rstrip('_')}"
        kind, place = hints[field.name], (*path, field.name)
        if dataclasses.is_dataclass(kind):
            yield from walk(cast("type[Any]", kind), f"{name}.", place)
        else:
            yield Key(name, place, kind, field)


def documented(node: type[Any] = Config, prefix: str = "") -> list[Key]:
    """The keys that users set by their own names, those of a section together."""
    return [key for key in walk(node, prefix) if not key.by_preset]
