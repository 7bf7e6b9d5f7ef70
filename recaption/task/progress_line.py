"""A task's progress for people: one line a minute on its stdout."""

from __future__ import annotations

import os
import time

import psutil

from recaption.pipeline.loop import Pipeline
from recaption.task.claims import Claims

SECONDS = 60.0


class Summary:
    """Prints what a task has done, and how fast since the line before."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.slice = {claims.run.shards[p].name for p in claims.slice}
        self.last, self.settled = time.monotonic(), 0
        self.given_up = 0  # engines that were reported as given up

    def tick(self, pipeline: Pipeline) -> None:
        """Print a line if the last one is a minute old, and one for an engine that is given up on."""
        engines = pipeline.engines
        for reason in engines.given_up[self.given_up :]:
            left = f"{len(engines.handles)} of {engines.wanted} engines go on"
            print(f"recaption: {reason}; {left} (see {engines.log})", flush=True)
        self.given_up = len(engines.given_up)
        if time.monotonic() - self.last >= SECONDS:
            self.show(pipeline)

    def show(self, pipeline: Pipeline) -> None:
        now = time.monotonic()
        rate = (pipeline.settled - self.settled) / (now - self.last or 1.0)
        self.last, self.settled = now, pipeline.settled
        done = len(self.claims.paths.marked() & self.slice)
        others = self.claims.taken_over
        engines = pipeline.engines
        parts = [
            f"{done} of {len(self.slice)} shards",
            *([f"{others} of other tasks"] if others else []),
            f"{pipeline.settled} samples",
            f"{rate:.1f} images/s",
            f"{engines.in_flight()} in flight",
            *([f"{len(engines.handles)} of {engines.wanted} engines"] if engines.given_up else []),
            f"{engines.restarts} engine restarts",
            f"{tree_bytes() / 2**30:.1f} GiB of memory",
        ]
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {', '.join(parts)}", flush=True)


def tree_bytes() -> int:
    """Bytes of resident memory of this process and unshared resident memory of its descendants."""
    root = psutil.Process(os.getpid())
    total: int = root.memory_info().rss
    for child in root.children(recursive=True):
        try:
            memory = child.memory_info()
        except psutil.Error:
            continue
        total += max(0, memory.rss - memory.shared)
    return total
