"""A launch from inside a job: what describes that job does not get into the tasks."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from slurm.conftest import ShardMaker
from slurm.lab import Lab
from slurm.runs import SETTINGS, Completed, Run, job_ids


def launch_words(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "recaption.launch", "engine=fake", f"output.dir={folder}", *words]


def test_from_an_array_job_that_was_restarted(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path
) -> None:
    """Its tasks are requeued as what they are, and the job that launched them is left alone."""
    shards, said = make_shards(12, 60), tmp_path / "said"
    words = [*SETTINGS, shards.words(0, 3), "engine.rate=20", "slurm.tasks=2", "task.steal=false"]
    line = shlex.join(launch_words(tmp_path / "run", *words))
    script = f"export SLURM_RESTART_COUNT=5; cd {tmp_path} && {line} >{said} 2>&1; exec sleep 300"
    array = lab.sbatch("--array=7-7", "--mem-per-cpu=100", wrap=script)
    lab.wait_until(lambda: said.exists() and "next: " in said.read_text(), 60, "the launch")
    run = Run(lab, tmp_path / "run", job_ids(Completed([], 0, said.read_text())))
    lab.wait_until(lambda: len([a for a in run.attempts() if a.captioned]) == 2, 60, "tasks")
    for task in (0, 1):
        lab.scancel("-s", "USR2", run.task(task))
    run.wait(90)
    ends = {(a.task, a.restart): a.stop for a in run.attempts()}
    assert ends == {(0, 0): "drain", (1, 0): "drain", (0, 1): "done", (1, 1): "done"}, run.said()
    assert run.published() == 4
    assert lab.state(f"{array}_7") == "RUNNING"
    assert lab.restarts(f"{array}_7") == 0


def test_from_an_allocation_with_memory_per_cpu(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path
) -> None:
    """A single task, which is no array, and a local one."""
    shards = make_shards(12, 60)
    allocated = ["salloc", "--quiet", "--mem-per-cpu=100", "--nodes=1"]
    for name, words in (("there", SETTINGS), ("here", ())):
        command = launch_words(tmp_path / name, shards.words(0, 0), *words, "wait=true")
        done = subprocess.run(
            [*allocated, *command],
            env={**lab.env, "SLURM_RESTART_COUNT": "5", "SBATCH_MEM_BIND": "local"},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        (attempt,) = Run(lab, tmp_path / name, []).attempts()
        assert attempt.restart == 0
        assert ("job_id" in attempt.events[0]) == (name == "there")
