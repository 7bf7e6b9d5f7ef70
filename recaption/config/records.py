"""Reads configurations that this version or an earlier one has recorded on disk."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from recaption.config.onnx import Scorer
from recaption.config.schema import Config
from recaption.config.schema_walk import walk
from recaption.errors import UserError

T = TypeVar("T")


def from_record(kind: type[T], record: Mapping[str, Any], where: str) -> T:
    """A flat record as an object of `kind`.

    A field that the record lacks gets the value that its absence stands for (see config.key). Raises
    UserError for a field that `kind` does not have; the message names the field and `where` it is.
    """
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(record) - set(known))
    if unknown:
        raise UserError(
            f"{where}: has {', '.join(unknown)}, which this version of recaption does not know; "
            "use the version that wrote it, or a later one"
        )
    absent = {name: absence(f) for name, f in known.items() if name not in record}
    return kind(**record, **{name: value for name, value in absent.items() if value is not MISSING})


def absence(field: Field[Any]) -> Any:
    """The value of a field that a record lacks: its `was`, else its default, else MISSING."""
    if "was" in field.metadata:
        return copy.deepcopy(field.metadata["was"])
    return field.default_factory() if field.default_factory is not MISSING else field.default


def typed_config(record: Mapping[str, Any], where: str = "configuration") -> Config:
    """The inverse of run.record.plain_config; `${` in values is not interpreted."""
    hints = get_type_hints(Config)
    sections: dict[str, Any] = {}
    for name, value in record.items():
        kind = hints.get(name)
        nested = is_dataclass(kind) and isinstance(kind, type)
        sections[name] = from_record(kind, value, f"{where}: {name}") if nested else value  # type: ignore[arg-type]
    config = from_record(Config, sections, where)
    config.scorers = {
        name: from_record(Scorer, _classless(value), f"{where}: scorers.{name}")
        for name, value in record["scorers"].items()
    }
    return config


def _classless(scorer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop the class that 0.1.0 also recorded for models that give a single number."""
    if "layout" in scorer or scorer["kind"] == "softmax":
        return scorer
    return {**scorer, "class_": None}


def new_keys() -> dict[str, Any]:
    """The keys that 0.1.0 lacked, as the schema spells them, each with what its absence stood for."""
    return {
        ".".join(key.path): copy.deepcopy(key.metadata["was"])
        for key in walk()
        if "was" in key.metadata
    }
