"""Identifies a process, and tells whether it is certainly gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STATE, START = 0, 19  # fields of /proc/PID/stat after the command's name
ENDED = "ZX"


@dataclass(frozen=True)
class Process:
    """One process, distinct from others with its pid: on another machine, in another
    container, before a reboot, or later."""

    host: str
    boot: str
    namespace: str  # of process numbers; a container has its own
    pid: int
    start: str  # clock ticks since boot


def this_process() -> Process | None:
    """This process; None if /proc does not tell."""
    return process_of(os.getpid())


def process_of(pid: int) -> Process | None:
    """The process with this pid here; None if there is none or /proc does not tell."""
    place, stat = _place(), _stat(pid)
    return None if place is None or stat is None else Process(*place, pid, stat[START])


def is_alive(process: Process) -> bool:
    """True only if it is seen on this machine, with its pid and start time."""
    stat = _stat(process.pid)
    here = (process.host, process.boot, process.namespace) == _place()
    return here and stat is not None and stat[STATE] not in ENDED and stat[START] == process.start


def terminate(process: Process) -> None:
    """Send TERM to a process of this machine, unless it is gone. Raises PermissionError."""
    with contextlib.suppress(ProcessLookupError):
        if is_alive(process):
            os.kill(process.pid, signal.SIGTERM)


def is_gone(process: Process) -> bool:
    """True only if it would be seen on this machine and is not there."""
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
