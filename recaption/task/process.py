"""Who a process is, and whether it is certain that it is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STATE, START = 0, 19  # fields of /proc/PID/stat after the command's name
ENDED = "ZX"


@dataclass(frozen=True)
class Process:
    """One process, told from every other one that has its number: on another machine, in another
    container, before a reboot, or later."""

    host: str
    boot: str
    namespace: str  # of process numbers; a container has its own
    pid: int
    start: str  # clock ticks since boot


def this_process() -> Process | None:
    """This process; None where /proc does not tell."""
    found = _place(), _stat(os.getpid())
    if found[0] is None or found[1] is None:
        return None
    return Process(*found[0], os.getpid(), found[1][START])


def is_gone(process: Process) -> bool:
    """True only where it would be seen here if it were there, and is not."""
    if (process.host, process.boot, process.namespace) != _place():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's: it is there, and /proc may hide more
        pass
    stat = _stat(process.pid)
    return stat is not None and (stat[STATE] in ENDED or stat[START] != process.start)


def _place() -> tuple[str, str, str] | None:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
        return socket.gethostname(), BOOT_ID.read_text().strip(), namespace
    except OSError:
        return None


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > START else None
