"""A key of the configuration: a dataclass's field with its meaning and the values it allows."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def key(default: Any, doc: str, **limits: Any) -> Any:
    """A field with its meaning; `choices`, or `low` and `high`, limit its values.

    A key that 0.1.0 lacked says in `was` what a record without it stands for: runs of 0.1.0 have
    that value, and while a run has it the key is not in its identity.

    How the command line takes a value (see config.overrides): `literal`, or as a `path` (where `~`
    is the home folder, in presets too) or `text`.
    """
    if isinstance(default, (list, dict)):
        copied = default
        return field(default_factory=lambda: copied.copy(), metadata={"doc": doc, **limits})
    return field(default=default, metadata={"doc": doc, **limits})
