"""A run that is worked on is left alone by a second launch, and can be stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import Completed, Made, launched, markers, refused, started, task_logs, wait_until

from recaption.cli.at_work import at_work
from recaption.launch import submission
from recaption.run.liveness import process_of
from recaption.run.paths import RunPaths
from recaption.run.record import add_jobs, read_submission, write_submission
from recaption.stop import main as stop

Launch = Callable[..., Completed]
WORDS = ("data.shards=in/*.tar", "engine=fake", "output.dir=run", "task.flush_seconds=0.2")
SLOW = ("engine.rate=10", "engine.max_num_seqs=2", "engine.waiting=0")


def submissions(run: Path) -> int:
    return len(list((run / ".recaption/submissions").glob("*.json")))


def captioned(run: Path) -> bool:
    logs = [p.read_text() for p in run.glob(".recaption/tasks/*.jsonl")]
    events = [json.loads(line) for text in logs for line in text.splitlines() if line]
    return any(e.get("captioned") for e in events)


@pytest.mark.faults
def test_the_same_launch_beside_one_that_works(
    tmp_path: Path, launch_here: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused from the first moment on, then stopped, then gone on with."""
    write_shards(tmp_path / "in", 2, 100, side=96)
    run = tmp_path / "run"
    two = ("slurm.tasks=2", "slurm.parallelism=1")
    with started(*WORDS, *SLOW, *two, cwd=tmp_path) as process:
        wait_until(lambda: run.exists() and submissions(run), 60, "nothing was submitted")
        with monkeypatch.context() as patched:  # for which no log has to be read
            patched.setattr(submission, "scan", None)
            said = refused(launch_here(*WORDS, cwd=tmp_path), "submission 0", "force=true")
        assert "recaption.stop" in said
        wait_until(lambda: captioned(run), 60, lambda: task_logs(tmp_path))
        said = refused(launch_here(*WORDS, "force=false", cwd=tmp_path), "task 0-0 (process ")
        (pid,) = [p for p, command in process.left() if f"(process {p})" in said]
        assert submissions(run) == 1
        assert launch_here(*WORDS, "dry_run=true", cwd=tmp_path).returncode == 0
        assert stop([str(run)]) == 0
        result = process.finish(60)
    assert result.returncode == 1
    assert not Path(f"/proc/{pid}").exists()
    starts = list((run / ".recaption/tasks").glob("0-1@*"))
    assert starts == [], "a task was started after the stop"
    assert stop([str(run)]) == 0
    launched(*WORDS, cwd=tmp_path)
    assert len(markers(run)) == 2


@pytest.mark.faults
@pytest.mark.parametrize("wait", ["wait=true", "wait=false"])
def test_two_launches_that_both_saw_nothing_at_work(
    wait: str, tmp_path: Path, launch_here: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one gives way, and leaves nothing to do for a retry or a status."""
    write_shards(tmp_path / "in", 1, 100, side=96)
    run = tmp_path / "run"
    look = submission.refuse_at_work
    with ExitStack() as stack:

        def look_before_another(paths: RunPaths, numbers: Sequence[int]) -> None:
            look(paths, numbers)
            monkeypatch.setattr(submission, "refuse_at_work", look)
            stack.enter_context(started(*WORDS, *SLOW, wait, cwd=tmp_path))
            wait_until(lambda: submissions(run), 60, "nothing was submitted")

        monkeypatch.setattr(submission, "refuse_at_work", look_before_another)
        refused(launch_here(*WORDS, cwd=tmp_path), "at work: ", "force=true")
        first, second = (read_submission(RunPaths(run), n) for n in range(2))
        assert (len(first.slices), len(second.slices)) == (1, 0)
        wait_until(lambda: captioned(run), 60, lambda: task_logs(tmp_path))
        assert at_work(RunPaths(run)).tasks.keys() == {"0-0"}
        assert stop([str(run)]) == 0


def test_a_submission_that_has_no_jobs_yet(made: Made, tmp_path: Path) -> None:
    """It is at work as long as who submits it lives; elsewhere, as long as that may take."""
    paths = RunPaths(tmp_path / "run")
    shutil.copytree(made.run, paths.root)
    last = read_submission(paths, 0)
    last.config["slurm"]["kind"] = "cluster"
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        here = process_of(sleeping.pid)
        assert here
        elsewhere = replace(here, host="another")
        added = replace(last, processes=[], created=time.time(), submitter=asdict(here))
        assert write_submission(paths, added, "a").number == 1
        old = replace(added, submitter=asdict(elsewhere), created=time.time() - 1000)
        assert write_submission(paths, old, "b").number == 2
        assert at_work(paths).launches == [1]
        sleeping.kill()
    assert not at_work(paths)
    assert write_submission(paths, replace(old, created=time.time()), "c").number == 3
    assert str(at_work(paths)) == "submission 3"
    add_jobs(paths, replace(old, number=3), "d")
    assert not at_work(paths)


@pytest.mark.faults
def test_tasks_that_nobody_waits_for(
    tmp_path: Path, launch_here: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    """force=true adds a task, and is not taken up by a retry; a killed one is not at work."""
    write_shards(tmp_path / "in", 3, 60, side=96)
    run = tmp_path / "run"
    words = (*WORDS, *SLOW, "wait=false")
    with started(*words, cwd=tmp_path) as process:
        assert process.popen.wait(60) == 0
        said = refused(launch_here(*WORDS, cwd=tmp_path), "task 0-0 (process ")
        with started(*words, "force=true", cwd=tmp_path) as other:
            assert other.popen.wait(60) == 0
            wait_until(lambda: captioned(run), 60, lambda: task_logs(tmp_path))
            config = json.loads((run / ".recaption/submissions/1.json").read_bytes())["config"]
            assert config["force"] is False
            os.kill(int(re.findall(r"\(process (\d+)\)", said)[0]), signal.SIGKILL)
            alive = lambda: at_work(RunPaths(run)).tasks  # noqa: E731
            wait_until(lambda: "0-0" not in alive(), 10, "the killed task is at work")
            assert stop([str(run)]) == 0
            assert "stopping task 1-0 (process " in capfd.readouterr().out
            assert stop([str(run)]) == 0
            assert "nothing works on" in capfd.readouterr().out
            wait_until(lambda: not other.left(), 10, lambda: f"left: {other.left()}")


def test_wrong_use_of_stop(tmp_path: Path) -> None:
    from recaption.errors import UserError

    for words in ([], ["a", "b"], ["--now"], [str(tmp_path)]):
        with pytest.raises(UserError):
            stop(words)
