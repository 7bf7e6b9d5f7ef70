"""Memory of a process tree over time."""

from __future__ import annotations

import os
import threading

import psutil

INTERVAL = 1.0


class PeakMemory:
    """Samples the proportional memory (PSS) of this process and all its descendants."""

    def __init__(self) -> None:
        self.peak = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _sample(self) -> None:
        while not self.stop.wait(INTERVAL):
            self.peak = max(self.peak, tree_memory())


def tree_memory() -> int:
    """Bytes of this process and its descendants, shared pages counted once."""
    root = psutil.Process(os.getpid())
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
