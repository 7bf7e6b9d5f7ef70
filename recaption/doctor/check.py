"""What the doctor says: one line per thing looked at."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from recaption.errors import RecaptionError

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `advice` says what to do where it is not ok."""

    name: str
    result: str
    text: str
    advice: str = ""
    where: str = ""  # the node; empty for the machine that the doctor was started on


def ok(name: str, text: str) -> Check:
    return Check(name, OK, text)


def warn(name: str, text: str, advice: str) -> Check:
    return Check(name, WARN, text, advice)


def fail(name: str, text: str, advice: str) -> Check:
    return Check(name, FAIL, text, advice)


def tried(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks that `look` makes; what it cannot do is a failure of its own."""
    try:
        return list(look())
    except RecaptionError as e:
        return [fail(name, str(e), "change that key, or what it names")]
    except (OSError, subprocess.SubprocessError) as e:
        return [fail(name, str(e), "see the message")]


def gib(size: float) -> str:
    """Bytes in GiB, as text."""
    return f"{size / 2**30:.1f} GiB"
