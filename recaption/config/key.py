"""A key of the configuration: a dataclass's field with its meaning and the values it allows."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def key(default: Any, doc: str, **limits: Any) -> Any:
    """A field with its documentation; `choices`, or `low` and `high`, limit its values.

    A key that version 0.1.0 lacked has a `was`: the value that stands for 0.1.0's behavior. Runs
    whose record lacks the key have that value, and the key is left out of a run's identity while it
    has that value.

    `literal`, `path` and `text` say how the command line reads the value (see config.overrides). In
    a `path`, `~` is the home folder, in presets too. `fake` marks a key of the fake engine alone.
    """
    if isinstance(default, (list, dict)):
        copied = default
        return field(default_factory=lambda: copied.copy(), metadata={"doc": doc, **limits})
    return field(default=default, metadata={"doc": doc, **limits})
