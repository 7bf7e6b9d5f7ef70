"""recaption.stop where Slurm gives no answer, or has jobs only later."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from synthetic import make_run

from recaption.cli import slurm
from recaption.cli.at_work import AtWork
from recaption.errors import TaskError
from recaption.run.record import Submission, write_submission
from recaption.stop import command, main


def test_a_queue_that_does_not_answer_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = make_run(tmp_path / "run", 1, 1)
    config = {"slurm": {"kind": "cluster"}}
    write_submission(paths, Submission(1, config, [0], [[0]], time.time(), ["77_0"]), "t")
    monkeypatch.setattr(slurm, "jobs", lambda ids: None)
    with pytest.raises(TaskError, match=r"squeue does not answer.* job 77 "):
        main([str(paths.root)])
    monkeypatch.setattr(slurm, "jobs", lambda ids: {})
    assert main([str(paths.root)]) == 0
    assert "nothing works" in capsys.readouterr().out


def test_jobs_of_a_launch_that_was_submitting_are_canceled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, although Slurm shows them as running for a while."""
    paths = make_run(tmp_path / "run", 1, 1)
    seen = iter(
        [AtWork(launches=[1]), AtWork(["77"]), AtWork(["77"]), AtWork(["77", "78"]), AtWork()]
    )
    canceled: list[str] = []
    monkeypatch.setattr(command, "at_work", lambda paths: next(seen))
    monkeypatch.setattr(command, "POLL", 0.0)
    monkeypatch.setattr(slurm, "cancel", lambda jobs: canceled.extend(jobs) or "")
    assert main([str(paths.root)]) == 0
    assert canceled == ["77", "78"]
