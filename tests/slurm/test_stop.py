"""Waiting for Slurm's jobs, leaving them at work, and ending them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from helpers import captions
from slurm.conftest import ShardMaker
from slurm.lab import Lab
from slurm.runs import SETTINGS, Run, command, job_ids

SLOW = ("engine.rate=10", "slurm.tasks=2")


def test_jobs_outlive_who_waits_for_them_until_they_are_stopped(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path
) -> None:
    shards = make_shards(12, 60)
    words = [*SETTINGS, *SLOW, shards.words(0, 3), "engine=fake", "output.dir=run"]
    waiting = subprocess.Popen(
        [sys.executable, "-m", "recaption.launch", *words, "wait=true"],
        cwd=tmp_path,
        env=dict(lab.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = Run(lab, tmp_path / "run", [])
    lab.wait_until(lambda: run.folder.exists() and run.captioned() > 5, 60, "captions")
    second = command(lab, "launch", *words, cwd=tmp_path)
    assert second.returncode == 2, second
    waiting.send_signal(signal.SIGTERM)
    out, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 1, err
    done = subprocess.CompletedProcess(words, 1, out, err)
    (array,) = run.arrays = job_ids(done)
    assert f"job {array}" in second.stderr
    assert "force=true" in second.stderr
    assert f"the jobs go on: {array}; `python -m recaption.stop {run.folder}`" in err
    assert len(list((run.folder / ".recaption/submissions").iterdir())) == 1
    assert run.queued()
    stopped = command(lab, "stop", str(run.folder), cwd=tmp_path)
    assert stopped.returncode == 0, stopped
    assert f"job {array}" in stopped.stdout
    run.wait(30)
    assert {a.stop for a in run.attempts()} == {"now"}, run.said()
    kept = run.captioned()
    rest = Run.launch(lab, run.folder, shards.words(0, 3))
    rest.wait(60)
    assert kept > 0
    assert rest.captioned() == len(captions(run.folder)) == 4 * 60
    assert captions(run.folder).items() <= shards.captions.items()


def test_a_waiting_sweep_submits_all_points_first(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path
) -> None:
    shards = make_shards(12, 60)
    words = [*SETTINGS, shards.words(0, 1), "engine=fake", "slurm.tasks=1", "engine.rate=60"]
    words += ["output.dir=${prompt.name}", "prompt=short,detailed", "wait=true"]
    done = command(lab, "launch", "-m", *words, cwd=tmp_path)
    assert done.returncode == 0, done
    assert done.stdout.count("2 of 2 shards published") == 2
    last_submission = done.stdout.rindex("job ids: ")
    assert last_submission < done.stdout.index("2 of 2 shards published")
