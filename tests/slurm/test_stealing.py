"""A task that is done helps the others, so that a slow one costs at most a shard."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm.conftest import ShardMaker
from slurm.lab import Lab
from slurm.runs import Attempt, Run, assert_whole

RATE = 12.0
TASKS, SHARDS, SAMPLES = 4, 96, 8
PERIOD, AWAKE = 0.5, 0.05  # seconds


@contextlib.contextmanager
def slowed(pid: int) -> Iterator[None]:
    """A process that gets a tenth of the time: what a sick node does to a task."""
    over = threading.Event()

    def nudge() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not over.wait(AWAKE):
                os.kill(pid, signal.SIGSTOP)
                over.wait(PERIOD - AWAKE)
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=nudge)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("steal", [True, False])
def test_a_slow_task(steal: bool, lab: Lab, make_shards: ShardMaker, tmp_path: Path) -> None:
    shards = make_shards(SHARDS, SAMPLES)
    words = [f"engine.rate={RATE}", f"slurm.tasks={TASKS}", f"task.steal={str(steal).lower()}"]
    words += ["engine.max_num_seqs=1", "engine.waiting=1"]
    run = Run.launch(lab, tmp_path / "run", shards.words(), *words)
    lab.wait_until(lambda: len(run.attempts()) == TASKS, 60, "every task")
    with slowed(run.python(0)):
        lab.wait_until(lambda: all(a.captioned for a in run.attempts()), 60, "tasks at work")
        began, first = time.time(), [beats(a)[-1] for a in run.attempts()]
        lab.wait_until(lambda: run.captioned() > 0.4 * len(shards.captions), 60, "captions")
        half, last = time.time(), [beats(a)[-1] for a in run.attempts()]
        speeds = [pace(*pair) for pair in zip(first, last, strict=True)]
        slow = speeds[[a.task for a in run.attempts()].index(0)]
        assert slow < max(speeds) / 2
        left = len(shards.captions) - run.captioned()
        ideal = half - began + left / sum(speeds)
        deadline = began + 1.3 * ideal
        while time.time() < deadline and run.published() < SHARDS:
            time.sleep(0.1)
        in_time = run.published() == SHARDS
    assert in_time == steal, f"{run.published()} of {SHARDS} shards, {speeds}, {ideal:.1f} s"
    if steal:
        run.wait(30)
        assert_whole(run.folder, shards.names, shards.captions)
        assert 0 < len(run.attempts(0)[0].published) < SHARDS / TASKS
        assert run.captioned() <= len(shards.captions) * 1.02
    else:
        assert SHARDS - run.published() > 2
        lab.scancel(run.array)


def beats(attempt: Attempt) -> list[dict[str, Any]]:
    return [e for e in attempt.events if e["event"] == "beat"]


def pace(first: dict[str, Any], last: dict[str, Any]) -> float:
    """Captions per second between two beats."""
    made: float = last["captioned"] - first["captioned"]
    return made / max(1.0, last["seconds"] - first["seconds"])
