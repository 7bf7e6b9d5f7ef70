"""Work that is longer than its time limit goes on by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import rows
from slurm.conftest import LabMaker, ShardMaker
from slurm.runs import Run, assert_whole

MINUTES = 60


@pytest.mark.timeout(9 * MINUTES)
def test_two_minutes_for_work_of_five(
    make_lab: LabMaker, make_shards: ShardMaker, tmp_path: Path
) -> None:
    shards = make_shards(12, 100)
    words = ["engine.rate=4", "slurm.tasks=1", "slurm.time=2", "slurm.signal_delay=20"]
    words += ["engine.max_num_seqs=1", "engine.waiting=1"]
    run = Run.launch(make_lab(nodes=1), tmp_path / "run", shards.words(), *words)
    run.wait(8 * MINUTES)
    assert_whole(run.folder, shards.names, shards.captions)
    attempts = run.attempts()
    assert len(attempts) >= 3
    assert [a.restart for a in attempts] == list(range(len(attempts)))
    assert [a.stop for a in attempts] == ["drain"] * (len(attempts) - 1) + ["done"]
    assert all(a.last - a.started < 2 * MINUTES for a in attempts)
    assert sum(a.last - a.started for a in attempts) > 4.5 * MINUTES
    assert run.captioned() == len(shards.captions), "a caption was made twice"
    shared = [name for name in shards.names if len(makers(run, name)) > 1]
    assert len(shared) == len(attempts) - 1, "every stop was inside a shard"


def makers(run: Run, name: str) -> set[str]:
    """Attempts whose captions are in a shard."""
    return {row["attempt"] for row in rows(run.folder, name)}
