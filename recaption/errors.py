"""The errors that this package raises, by who has to act.

RecaptionError
├── UserError            a wrong key, value or path: one message, exit code 2
├── ShardError           this shard cannot be made; the others go on
│   ├── SpoolFull        there is no room for its spool file now
│   └── InputChanged     the shard is not the one that was frozen or journalled
├── SampleError          this sample cannot be captioned; it gets its own row
│   └── TooLong          its prompt does not fit, unless its fields are cut
└── TaskError            the task cannot go on: exit code 1, with the host's name
    └── DiskFull         no space or quota left where the run is written
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecaptionError(Exception):
    """Base of every error that this package raises on purpose."""


class UserError(RecaptionError):
    """A mistake of the user's; its text is all that they see."""


class ShardError(RecaptionError):
    """A shard that cannot be read or published; the text is its recorded reason."""


class SpoolFull(ShardError):
    """A shard has more bytes than its spool file may have."""


class InputChanged(ShardError):
    """An input shard differs from what the run was frozen or journalled with."""


class SampleError(RecaptionError):
    """A sample that cannot be captioned; the text is its recorded reason."""


class TooLong(SampleError):
    """A prompt that leaves too little of the model's context: its name, and how many tokens over."""

    def __init__(self, text: str, prompt: str, over: int) -> None:
        super().__init__(text)
        self.prompt, self.over = prompt, over


class TaskError(RecaptionError):
    """The task as a whole cannot go on."""


class DiskFull(TaskError):
    """No space, quota or inodes left in the run directory."""


def bad_value(key: str, value: object, valid: str) -> UserError:
    """A message that names the key, the value given, and what is valid."""
    return UserError(f"{key}={value}: {valid}")


def bad_choice(key: str, value: object, choices: Iterable[str]) -> UserError:
    """As bad_value, for a name that is not in a list; suggests the nearest one."""
    names = sorted(choices)
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return bad_value(key, value, f"valid choices are {', '.join(names)}{hint}")


def bad_key(key: str, siblings: Iterable[str]) -> UserError:
    """A message for a key that does not exist, which lists the keys that do."""
    parent, _, leaf = key.rpartition(".")
    names = sorted(siblings)
    near = difflib.get_close_matches(leaf, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    where = f"under {parent}" if parent else "at the top level"
    return UserError(f"{key}: no such key{hint}; valid keys {where} are {', '.join(names)}")
