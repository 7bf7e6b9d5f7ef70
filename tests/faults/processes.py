"""Which processes there are, by /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def children_of(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def processes(true: Callable[[int], bool]) -> list[int]:
    """Living processes but this one for which `true`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if state[0] not in "ZX" and true(int(entry)):
                    found.append(int(entry))
            except OSError:
                continue
    return found


def in_session(session: int) -> list[int]:
    return processes(lambda pid: os.getsid(pid) == session)


def in_folder(folder: Path) -> list[int]:
    return processes(lambda pid: os.readlink(f"/proc/{pid}/cwd") == str(folder))


def wait_gone(left: Callable[[], list[int]]) -> None:
    deadline = time.monotonic() + 10
    while remaining := left():
        assert time.monotonic() < deadline, f"processes are left: {remaining}"
        time.sleep(0.005)
