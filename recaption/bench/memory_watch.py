"""Memory and CPU time of a process tree over time, watched from a process of its own.

It is not a thread of the task, which would slow its loop down. Reading the proportional memory of a
process delays that process, so this is done rarely.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import psutil

INTERVAL = 0.5  # seconds
SHARE = 0.02  # of the time is spent reading proportional memory, at most
WINDOWS = 10  # growth is the slope of a line through the lowest value in each window
LEAST = 2  # samples in each window
WATCHING = "watching"


@dataclass
class Usage:
    """One process: its parent, CPU seconds since the first sample, memory over time."""

    parent: int
    cpu: float = 0.0
    resident: list[tuple[float, int]] = field(default_factory=list)  # (monotonic, bytes)


class Watch:
    """Samples this process and all its descendants at once, and then every INTERVAL.

    `peak` is the most proportional memory (PSS, bytes) of all together; `cpu` the CPU seconds of each
    role since the first sample. `roles` names the processes that it knows by their pids; a descendant
    of one is "NAME's child".
    """

    def __init__(self, roles: Callable[[], dict[int, str]]) -> None:
        self.roles = roles
        self.peak = 0
        self.seen: dict[int, Usage] = {}
        self.names: dict[int, str] = {}

    def __enter__(self) -> Watch:
        """Returns after the first sample."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, os.getpid())
        self.process = context.Process(target=_watch, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()
        self.names = self.roles()
        return self

    def __exit__(self, *_: object) -> None:
        self.names |= self.roles()
        self.connection.send("end")
        self.peak, self.seen = self.connection.recv()
        self.connection.close()
        self.process.join()

    @property
    def cpu(self) -> dict[str, float]:
        spent: dict[str, float] = defaultdict(float)
        for pid, usage in self.seen.items():
            spent[self._role(pid)] += usage.cpu
        return dict(spent)

    def growth(self, since: float) -> dict[str, float]:
        """Bytes/s by which the resident memory grew, by role: the fastest process of each.

        A straight line through the lowest value in each tenth of the second half of the time from
        `since` (monotonic) on: what a process holds for pictures in flight comes and goes.
        """
        found: dict[str, float] = {}
        middle = (since + time.monotonic()) / 2
        for pid, usage in self.seen.items():
            late = [s for s in usage.resident if s[0] >= middle]
            size = len(late) // WINDOWS
            if size >= LEAST:
                windows = [late[n * size : (n + 1) * size] for n in range(WINDOWS)]
                lowest = [min(window, key=lambda s: s[1]) for window in windows]
                role = self._role(pid)
                found[role] = max(found.get(role, float("-inf")), _slope(lowest))
        return found

    def _role(self, pid: int) -> str:
        parent = self.seen[pid].parent
        return self.names.get(pid) or f"{self.names.get(parent, 'other')}'s child"


class _Samples:
    """Samples of the processes of a tree, and the peak of its proportional memory."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.seen: dict[int, Usage] = {}
        self.before: dict[int, float] = {}  # CPU seconds at the first look
        self.peak, self.due = 0, 0.0

    def look(self) -> None:
        tree = [self.root, *self.root.children(recursive=True)]
        tree = [process for process in tree if process.pid != os.getpid()]
        for process in tree:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                used = sum(process.cpu_times()[:2])
                usage = self.seen.setdefault(process.pid, Usage(process.ppid()))
                usage.cpu = used - self.before.setdefault(process.pid, used)
                usage.resident.append((time.monotonic(), process.memory_info().rss))
        began = time.monotonic()
        if began >= self.due:
            self.peak = max(self.peak, sum(map(_proportional, tree)))
            self.due = began + (time.monotonic() - began) / SHARE


def _watch(connection: Connection, pid: int) -> None:
    """Entry point of the watching process: a first sample, and more until it is told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    samples = _Samples(pid)
    samples.look()
    connection.send(WATCHING)
    while not connection.poll(INTERVAL):
        samples.look()
    with suppress(EOFError):  # where it is gone
        connection.recv()
        connection.send((samples.peak, samples.seen))


def _proportional(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def _slope(samples: list[tuple[float, int]]) -> float:
    """Least squares."""
    times, values = zip(*samples, strict=True)
    mean_time, mean_value = sum(times) / len(times), sum(values) / len(values)
    above: float = sum((t - mean_time) * (v - mean_value) for t, v in samples)
    below: float = sum((t - mean_time) ** 2 for t in times)
    return above / below
