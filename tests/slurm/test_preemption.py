"""Preempted tasks come back and go on inside their shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm.conftest import ShardMaker
from slurm.lab import Lab
from slurm.runs import Run, assert_whole, generations

RATE, FLUSH_SECONDS = 50, 1.0
TASKS, SHARDS, SAMPLES = 6, 48, 60


def test_three_preemptions_cost_almost_nothing(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shards = make_shards(SHARDS, SAMPLES)
    record = tmp_path_factory.mktemp("record") / "record"  # appends of several nodes would mix
    words = [
        f"engine.rate={RATE}",
        f"engine.record={record}",
        f"slurm.tasks={TASKS}",
        f"task.flush_seconds={FLUSH_SECONDS}",
    ]
    run = Run.launch(lab, tmp_path / "run", shards.words(), *words)
    for number, done in enumerate((0.15, 0.4, 0.65)):
        wanted = done * SHARDS * SAMPLES
        lab.wait_until(lambda n=wanted: run.captioned() >= n, 60, f"{wanted:.0f} captions")
        before = {attempt.started for attempt in run.attempts()}
        grace = 0 if number == 1 else 5
        lab.scontrol("update", "PartitionName=low", f"GraceTime={grace}")
        lab.preempt(0.5)
        lab.wait_until(
            lambda b=before: any(a.started not in b for a in run.attempts()), 40, "a new attempt"
        )
    lab.scontrol("update", "PartitionName=low", "GraceTime=5")
    run.wait(90)
    assert_whole(run.folder, shards.names, shards.captions)
    assert max(attempt.restart for attempt in run.attempts()) == 3
    made = generations(record)
    assert set(made) == set(shards.captions.values())
    twice = sum(made.values()) - len(made)
    hard_kills = TASKS
    assert twice <= FLUSH_SECONDS * RATE * hard_kills, twice
    assert run.pids() == []
