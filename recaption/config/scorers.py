"""The ONNX scorers of a run, the watermark classifier included, which has its own section."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recaption.config.onnx import Scorer
from recaption.config.schema import Config
from recaption.errors import UserError, bad_key, bad_value

WATERMARK = "watermark"
SECOND = 1
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def named_scorers(section: Mapping[str, Any]) -> dict[str, Scorer]:
    """The `scorers` section as typed scorers, by name.

    Raises UserError for an unknown key or a value of a wrong type.
    """
    found = {}
    for name, values in section.items():
        key = f"scorers.{name}"
        if not NAME.fullmatch(str(name)) or name == WATERMARK:
            valid = "use lower-case letters, digits and _ (it names a column), not watermark"
            raise bad_value(key, values, valid)
        if not isinstance(values, Mapping):
            raise UserError(f"{key}: is a section, set one of its keys: {', '.join(_keys())}")
        given = {"class_" if k == "class" else k: v for k, v in values.items()}
        for leaf in given:
            if leaf.rstrip("_") not in _keys():
                raise bad_key(f"{key}.{leaf}", _keys())
        merged = OmegaConf.structured(Scorer)
        for leaf, value in given.items():
            try:
                merged = OmegaConf.merge(merged, {leaf: value})
            except OmegaConfBaseException as e:
                raise UserError(f"{key}.{leaf.rstrip('_')}: {str(e).splitlines()[0]}") from None
        typed = OmegaConf.to_object(merged)
        assert isinstance(typed, Scorer)
        found[str(name)] = typed
    return found


def all_scorers(config: Config) -> dict[str, Scorer]:
    """Every scorer of the run, by name; its scores are in the column and field `NAME_score`."""
    scorers: dict[str, Scorer] = {}
    if config.watermark.kind != "off":
        values = asdict(config.watermark)
        values["kind"] = values.pop("output")
        scorers[WATERMARK] = Scorer(**values)
    return scorers | config.scorers


def class_of(scorer: Scorer) -> int:
    """The position, in the model's output, of the number that is the score; by default 1."""
    return SECOND if scorer.class_ is None else scorer.class_


def section(name: str) -> str:
    """The key of a scorer's section."""
    return name if name == WATERMARK else f"scorers.{name}"


def _keys() -> list[str]:
    return [f.name.rstrip("_") for f in fields(Scorer)]
