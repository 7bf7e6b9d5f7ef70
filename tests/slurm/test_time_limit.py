"""Work that is longer than its time limit goes on by itself."""

from __future__ import annotations

import pytest
from helpers import rows
from slurm.conftest import Shards
from slurm.runs import Run, assert_whole

MINUTES = 60


@pytest.mark.timeout(9 * MINUTES)
def test_two_minutes_for_work_of_five(long_run: tuple[Run, Shards]) -> None:
    """The run was started when the session was; see conftest.py."""
    run, shards = long_run
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
