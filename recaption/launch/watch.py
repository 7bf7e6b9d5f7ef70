"""Shows a submission's progress until it ends: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

from tqdm import tqdm

from recaption.cli.terminal import is_live
from recaption.run.paths import RunPaths
from recaption.run.record import Run
from recaption.run.scan import RunState, scan

POLL_SECONDS = 0.5
LINE_SECONDS = 10.0


def follow(
    paths: RunPaths, run: Run, selected: Iterable[int], submission: int, alive: Callable[[], bool]
) -> RunState:
    """Show progress while `alive()`, then return the final state."""
    names = {run.shards[p].name for p in selected}
    with _Progress(len(names)) as progress:
        running = True
        while running:
            running = alive()
            progress.show(paths, run, names, submission, last=not running)
            if running:
                time.sleep(progress.interval)
    return scan(paths, run)


class _Progress:
    def __init__(self, shards: int) -> None:
        self.live = is_live(sys.stderr)
        self.shards = shards
        self.interval = POLL_SECONDS
        self.started = time.monotonic()
        self.last_line = float("-inf")
        self.last_text = ""
        self.bar = tqdm(total=shards, unit="shard", disable=not self.live, leave=False)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, paths: RunPaths, run: Run, names: set[str], submission: int, last: bool) -> None:
        before = time.monotonic()
        marked = len(paths.marked() & names)
        tasks = [t for t in scan(paths, run).tasks if t.submission == submission]
        captioned = sum(t.heartbeat.get("captioned", 0) for t in tasks)
        others = sum(t.settled for t in tasks) - captioned
        rate = sum(t.rate() for t in tasks if not t.stop)
        text = f"{captioned} captions in {before - self.started:.0f} s"
        text += f", {others} samples without one" if others > 0 else ""
        text += f", {rate:.1f} images/s" if rate else ""
        working = [t for t in tasks if t.heartbeat.get("settled")]
        if not working:
            text = "starting engines" if tasks else "starting tasks"
        self.bar.n = marked
        self.bar.set_postfix_str(text)
        line = f"{marked} of {self.shards} shards, {text}"
        ends = last and marked == self.shards
        due = before - self.last_line >= LINE_SECONDS or ends
        if not self.live and due and line != self.last_text:
            print(line, file=sys.stderr, flush=True)
            self.last_line, self.last_text = before, line
        self.interval = max(POLL_SECONDS, 10 * (time.monotonic() - before))
