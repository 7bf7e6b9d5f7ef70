"""Which GPUs the tasks of this machine are given."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recaption.config.schema import Config
from recaption.launch import local, local_slots
from recaption.run.paths import RunPaths
from recaption.run.record import Submission


@pytest.mark.parametrize(
    ("gpus", "given"),
    [
        (None, ["0,2", "1,3"]),
        (2, ["0", "1"]),
        ("a100:3", ["0,2", "1"]),
        (0, ["", ""]),
    ],
)
def test_gpus_of_tasks(
    gpus: Any, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments: list[dict[str, str]] = []

    class Executor:
        def __init__(self, folder: Path, job_id: str, environment: dict[str, str]) -> None:
            environments.append(environment)

        def submit(self, *_: Any) -> Any:
            return local.LocalJob(tmp_path, "1", process=SimpleNamespace(poll=lambda: 0), tasks=[0])

    monkeypatch.setattr(local_slots, "visible_gpus", lambda: ["0", "1", "2", "3"])
    monkeypatch.setattr(local, "_Executor", Executor)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    config = Config()
    config.slurm.gpus, config.slurm.parallelism = gpus, 2
    submission = Submission(0, {}, [0, 1], [[0], [1]], 0.0)
    tasks = local.LocalTasks(RunPaths(tmp_path), submission, config, {}, tied=False)
    while tasks.alive():
        pass
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == given
