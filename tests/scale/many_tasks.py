"""2,500 tasks where an array may have 1,001: `make scale`. RECAPTION_SCALE_TASKS changes the number."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawing import draw_samples, write_shard
from helpers import captions, markers
from slurm.lab import Lab
from slurm.runs import Run

TASKS = int(os.environ.get("RECAPTION_SCALE_TASKS", "2500"))
LARGEST = 1001
AT_ONCE = 8 * (os.cpu_count() or 1)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.up(max_array=LARGEST) as cluster:
        yield cluster


@pytest.mark.timeout(3 * 3600)
def test_as_many_tasks_as_shards(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    keys = []
    for number in range(TASKS):
        (sample,) = draw_samples(1, number, side=96, plain=True, name=f"s{number}")
        keys.append(sample.key)
        write_shard(folder / f"{number:05d}.tar", [sample])
    words = [f"data.shards={folder}/{{00000..{TASKS - 1:05d}}}.tar", f"slurm.tasks={TASKS}"]
    words += [f"slurm.parallelism={AT_ONCE}", "slurm.cpus=1", "slurm.gpus=0", "slurm.time=60"]
    run = Run.launch(lab, tmp_path / "run", *words)
    assert len(run.arrays) == -(-TASKS // LARGEST)
    submission = json.loads((run.folder / ".recaption/submissions/0.json").read_bytes())
    assert len(set(submission["jobs"])) == TASKS
    lab.wait_until(lambda: lab.queue_empty(), 3 * 3600, "every task")
    assert {a.task for a in run.attempts()} == set(range(TASKS))
    assert all(a.stop == "done" for a in run.attempts())
    assert len(markers(run.folder)) == TASKS
    assert sorted(captions(run.folder)) == sorted(keys)
