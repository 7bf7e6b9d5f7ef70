"""Shows a submission's progress until it ends: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from recaption.cli.progress import Progress
from recaption.run.paths import RunPaths
from recaption.run.record import Run
from recaption.run.scan import RunState, TaskState, scan

POLL_SECONDS = 0.5


def follow(
    paths: RunPaths, run: Run, selected: Iterable[int], submission: int, alive: Callable[[], bool]
) -> RunState:
    """Show progress while `alive()`, then return the final state."""
    names = {run.shards[p].name for p in selected}
    started = time.monotonic()
    with Progress(len(names), "shard", announce=False) as progress:
        running = first = True
        while running:
            running = alive()
            before = time.monotonic()
            marked = len(paths.marked() & names)
            tasks = [t for t in scan(paths, run).tasks if t.submission == submission]
            ended = not running and marked == len(names)
            progress.show(marked, _described(tasks, before - started), at_once=first or ended)
            first = False
            if running:
                time.sleep(max(POLL_SECONDS, 10 * (time.monotonic() - before)))
    return scan(paths, run)


def _described(tasks: Sequence[TaskState], seconds: float) -> str:
    """What tasks have come to in this time."""
    if not any(t.heartbeat.get("settled") for t in tasks):
        return "starting engines" if tasks else "starting tasks"
    captioned = sum(t.heartbeat.get("captioned", 0) for t in tasks)
    others = sum(t.settled for t in tasks) - captioned
    rate = sum(t.rate() for t in tasks if not t.stop)
    text = f"{captioned} captions in {seconds:.0f} s"
    text += f", {others} samples without one" if others > 0 else ""
    return text + (f", {rate:.1f} images/s" if rate else "")
