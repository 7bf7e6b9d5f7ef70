"""Arrays of any size, several submissions of one run, sweeps, and waiting for them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from helpers import markers
from slurm.conftest import LabMaker, ShardMaker
from slurm.lab import Lab
from slurm.runs import SETTINGS, Run, assert_whole, command, job_ids


def test_more_tasks_than_an_array_may_have(
    make_lab: LabMaker, make_shards: ShardMaker, tmp_path: Path
) -> None:
    lab = make_lab(max_array=11)
    shards = make_shards(25, 4)
    run = Run.launch(lab, tmp_path / "run", shards.words(), "slurm.tasks=25", "slurm.parallelism=7")
    assert len(run.arrays) == 3
    submission = json.loads((run.folder / ".recaption/submissions/0.json").read_bytes())
    sizes = [sum(job.startswith(f"{array}_") for job in submission["jobs"]) for array in run.arrays]
    assert sizes == [11, 11, 3]
    at_once = []
    lab.wait_until(
        lambda: at_once.append(len(lab.squeue("--state=RUNNING"))) or not run.queued(), 120, "it"
    )
    assert max(at_once) <= 7
    assert max(at_once) >= 5
    assert_whole(run.folder, shards.names, shards.captions)
    assert {a.task for a in run.attempts()} == set(range(25))
    assert all(a.stop == "done" for a in run.attempts())


def test_two_submissions_of_one_run_share_the_work(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path
) -> None:
    shards = make_shards(12, 60)
    runs: dict[str, Run] = {}

    def submit(partition: str) -> None:
        words = [f"slurm.partition={partition}", "slurm.tasks=2", "engine.rate=25", "force=true"]
        runs[partition] = Run.launch(lab, tmp_path / "run", shards.words(), *words)

    threads = [threading.Thread(target=submit, args=(name,)) for name in ("low", "high")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(runs) == {"low", "high"}
    for run in runs.values():
        run.wait(90)
    run = runs["low"]
    assert_whole(run.folder, shards.names, shards.captions)
    made = [[name for a in run.attempts(submission=n) for name in a.published] for n in (0, 1)]
    assert made[0]
    assert made[1]
    assert sorted(made[0] + made[1]) == shards.names
    assert run.captioned() <= len(shards.captions) * 1.1


def test_a_sweep_returns_at_once_whatever_one_point_does(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path
) -> None:
    shards = make_shards(12, 60)
    words = [*SETTINGS, shards.words(0, 1), "engine=fake", "slurm.tasks=2", "engine.rate=20"]
    words += ["output.dir=${slurm.partition}-${prompt.name}", "prompt=short,detailed"]
    done = command(lab, "launch", "-m", *words, "slurm.partition=nowhere,low", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "nowhere" in done.stderr
    arrays = job_ids(done)
    assert len(arrays) == 2
    table = done.stdout[done.stdout.index("\npoint") :].splitlines()[2:]
    assert len(table) == 4
    for array in arrays:
        (line,) = [row for row in table if array in row]
        assert "submitted" in line
        assert "low-" in line
    assert len([row for row in table if "refused" in row]) == 2
    assert lab.squeue("--state=PENDING,RUNNING")
    runs = [
        Run(lab, tmp_path / f"low-{name}", [a])
        for name, a in zip(("short", "detailed"), arrays, strict=True)
    ]
    for run in runs:
        run.wait(60)
    assert_whole(
        runs[0].folder,
        shards.names[:2],
        {k: c for k, c in shards.captions.items() if k[:6] in ("s00000", "s00001")},
    )
    status = command(lab, "status", *(str(run.folder) for run in runs), cwd=tmp_path)
    assert status.returncode == 0, status.stdout + status.stderr


def test_waiting_outlives_the_controller(lab: Lab, make_shards: ShardMaker, tmp_path: Path) -> None:
    shards = make_shards(12, 60)
    words = [*SETTINGS, shards.words(), "engine=fake", "slurm.tasks=2", "engine.rate=40"]
    words += [f"output.dir={tmp_path}/run", "wait=true"]
    waiting = subprocess.Popen(
        [sys.executable, "-m", "recaption.launch", *words],
        env=lab.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lab.wait_until(lambda: (tmp_path / "run/.recaption/tasks").is_dir(), 20, "the run")
        tasks = tmp_path / "run/.recaption/tasks"
        lab.wait_until(lambda: len(list(tasks.iterdir())) == 2, 20, "two tasks")
        lab.stop_controller()
        lab.wait_until(lambda: len(markers(tmp_path / "run")) >= 6, 30, "half of the shards")
        assert waiting.poll() is None
        lab.start_controller()
        said, _ = waiting.communicate(timeout=60)
    finally:
        waiting.kill()
        waiting.wait()
    assert waiting.returncode == 0, said
    assert "12 of 12 shards published" in said
    assert_whole(tmp_path / "run", shards.names, shards.captions)
