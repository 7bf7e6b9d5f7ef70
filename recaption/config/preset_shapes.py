"""Finds the key of a preset that has a list instead of a mapping, or a mapping where none fits.

Hydra and OmegaConf do not name the key when merging such a preset fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recaption.config.overrides import GROUPS, Place, check_key
from recaption.errors import UserError

PACKAGE = re.compile(r"^# *@package +(\S+)", re.MULTILINE)


def misshapen(preset: str, folders: Sequence[Path]) -> str | None:
    """A message about the first such key of a preset, such as `model/site`; None if there is none."""
    for folder in folders:
        path = folder / f"{preset}.yaml"
        if not path.is_file():
            continue
        text = path.read_text()
        package = PACKAGE.search(text)
        section = package[1].replace("_global_", "") if package else preset.rpartition("/")[0]
        content = yaml.safe_load(text)
        prefix = f"{section.replace('/', '.')}." if section else ""
        return next(_wrong(content, prefix), None) if isinstance(content, dict) else None
    return None


def _wrong(content: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key == "defaults":
            continue
        try:
            place = check_key(key)
        except UserError:  # a section, or an unknown key, which merging does name
            place = Place({}, mapping=True)
        if place.mapping and not place.inside and isinstance(value, list):
            yield f"{key}: a mapping of names to values is needed, not a list"
        elif not place.mapping and key not in GROUPS and isinstance(value, dict):
            yield f"{key}: a mapping cannot be its value"
        elif isinstance(value, dict):
            yield from _wrong(value, f"{key}.")
