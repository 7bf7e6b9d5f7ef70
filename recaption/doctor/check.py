"""The doctor's checks and their results, one line each."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from recaption.errors import RecaptionError

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Check:
    """One check's result; `advice` says what to do if it is not ok."""

    name: str
    result: str
    text: str
    advice: str = ""
    where: str = ""  # the node; '' for the machine on which the doctor was started


def ok(name: str, text: str) -> Check:
    return Check(name, OK, text)


def warn(name: str, text: str, advice: str) -> Check:
    return Check(name, WARN, text, advice)


def fail(name: str, text: str, advice: str) -> Check:
    return Check(name, FAIL, text, advice)


def tried(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks that `look` makes; an error in it becomes a failed check."""
    try:
        return list(look())
    except RecaptionError as e:
        return [fail(name, str(e), "change that key, or what it names")]
    except (OSError, subprocess.SubprocessError) as e:
        return [fail(name, str(e), "see the message")]


def gib(size: float) -> str:
    """Bytes in GiB, as text."""
    return f"{size / 2**30:.1f} GiB"
