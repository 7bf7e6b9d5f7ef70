"""Memory and CPU time of a process tree over time."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import psutil

INTERVAL = 0.5  # seconds
WINDOWS = 10  # a line goes through the lowest of each
LEAST = 2  # samples in each


class Watch:
    """Samples this process and all its descendants at once, and then every INTERVAL.

    `peak` is the most proportional memory (PSS, bytes) of all together; `cpu` the CPU seconds of each
    role since the first sample. `roles` names the processes that it knows by their pids; a descendant
    of one is "NAME's child".
    """

    def __init__(self, roles: Callable[[], dict[int, str]]) -> None:
        self.roles = roles
        self.peak = 0
        self.cpu: dict[str, float] = defaultdict(float)
        self.spent: dict[int, float] = {}
        self.samples: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def growth(self, since: float) -> dict[str, float]:
        """Bytes/s by which the resident memory grew, by role: the fastest process of each.

        A straight line through the lowest value in each tenth of the second half of the time from
        `since` (monotonic) on: what a process holds for pictures in flight comes and goes.
        """
        found: dict[str, float] = {}
        middle = (since + time.monotonic()) / 2
        for (role, _), samples in list(self.samples.items()):
            late = [s for s in samples if s[0] >= middle]
            size = len(late) // WINDOWS
            if size >= LEAST:
                windows = [late[n * size : (n + 1) * size] for n in range(WINDOWS)]
                lowest = [min(window, key=lambda s: s[1]) for window in windows]
                found[role] = max(found.get(role, float("-inf")), _slope(lowest))
        return found

    def _sample(self) -> None:
        root = psutil.Process(os.getpid())
        ended = False
        while not ended:
            roles = self.roles()
            total = 0
            for process in [root, *root.children(recursive=True)]:
                try:
                    memory = process.memory_full_info()
                    used = sum(process.cpu_times()[:2])
                    role = roles.get(process.pid) or f"{roles.get(process.ppid(), 'other')}'s child"
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                total += memory.pss
                self.cpu[role] += used - self.spent.get(process.pid, used)
                self.spent[process.pid] = used
                self.samples[role, process.pid].append((time.monotonic(), memory.rss))
            self.peak = max(self.peak, total)
            ended = self.stop.wait(INTERVAL)


def _slope(samples: list[tuple[float, int]]) -> float:
    """Least squares."""
    times, values = zip(*samples, strict=True)
    mean_time, mean_value = sum(times) / len(times), sum(values) / len(values)
    above: float = sum((t - mean_time) * (v - mean_value) for t, v in samples)
    below: float = sum((t - mean_time) ** 2 for t in times)
    return above / below
