"""Named points at which the fault tests kill a task, if RECAPTION_CRASH_AT names one."""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "RECAPTION_CRASH_AT"  # NAME, or NAME:N for the N-th time that a process gets there

_passed: Counter[str] = Counter()


def crash_point(name: str) -> None:
    """Kill this process's whole group at this point, if the variable says so."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    _passed[name] += 1
    point, _, count = wanted.partition(":")
    if point == name and _passed[name] == int(count or 1):
        os.killpg(0, signal.SIGKILL)
