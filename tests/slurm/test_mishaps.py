"""Whatever becomes of a task, its shards are made, and nothing that was cancelled comes back."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from slurm.conftest import LabMaker, ShardMaker
from slurm.lab import Lab
from slurm.runs import Run, assert_whole, command, job_ids


def working(run: Run, tasks: int) -> bool:
    """Whether every task has made some captions in its latest attempt."""
    latest = {a.task: a for a in run.attempts()}
    return len(latest) == tasks and all(a.captioned for a in latest.values())


def test_requeue_signal_kill_and_lost_node(
    make_lab: LabMaker, make_shards: ShardMaker, tmp_path: Path
) -> None:
    """Four tasks, each with a mishap of its own, each in charge of its own slice alone.

    A fifth node takes the lost one's task, while the other three are back on theirs.
    """
    lab = make_lab(nodes=5)
    shards = make_shards(12, 60)
    words = ["engine.rate=4", "slurm.tasks=4", "slurm.gpus=4", "task.steal=false"]
    words += ["task.flush_seconds=0.5"]
    run = Run.launch(lab, tmp_path / "run", shards.words(), *words)
    lab.wait_until(lambda: working(run, 4), 40, "four tasks at work")
    requeued, signalled, killed, lost = range(4)

    lab.scontrol("requeue", run.task(requeued))
    lab.scancel("-s", "USR2", run.task(signalled))
    os.kill(run.python(killed), signal.SIGKILL)
    orphan = run.python(lost)
    node = lab.node_of(run.task(lost))
    lab.kill_node(node)
    first = {task: run.attempts(task)[0] for task in range(4)}

    lab.wait_until(lambda: lab.restarts(run.task(killed)) == 1, 15, "the killed one to be requeued")
    lab.wait_until(lambda: lab.restarts(run.task(lost)) == 1, 40, "the lost node to be noticed")
    before = run.attempts(lost)[0].captioned
    assert orphan in run.pids(lost)
    lab.wait_until(lambda: run.attempts(lost)[0].captioned > before, 20, "the orphan to go on")
    run.wait(120)
    lab.revive_node(node)

    for task in range(4):
        again = run.attempts(task)[-1]
        assert again.started > first[task].started
        assert again.restart == 1
        assert again.stop == "done", run.said()
    stops = {task: run.attempts(task)[0].stop for task in range(4)}
    assert stops == {requeued: "now", signalled: "drain", killed: "", lost: "superseded"}
    lab.wait_until(lambda: run.pids() == [], 10, "the orphan to end")
    assert_whole(run.folder, shards.names, shards.captions)


def test_killed_for_memory_before_it_begins(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path
) -> None:
    """Requeued, but not for ever; retry goes on where there is more."""
    shards = make_shards(12, 60)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    words = ["slurm.tasks=1", "task.attempts=2", "engine.rate=0"]
    run = Run.launch(lab, tmp_path / "run", shards.words(0, 1), *words, f"slurm.python={script}")
    run.wait(40)
    assert lab.state(run.array) == "FAILED"
    assert lab.restarts(run.array) == 1
    assert "slurm.mem" in run.said()
    done = command(lab, "retry", str(run.folder), "slurm.python=null", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    Run(lab, run.folder, job_ids(done)).wait(60)
    assert run.published() == 2


def test_what_is_cancelled_stays_away(lab: Lab, make_shards: ShardMaker, tmp_path: Path) -> None:
    shards = make_shards(12, 60)
    words = ["engine.rate=5", "slurm.tasks=3", "task.steal=false"]
    run = Run.launch(lab, tmp_path / "run", shards.words(), *words)
    lab.wait_until(lambda: working(run, 3), 40, "three tasks at work")
    lab.scancel(run.task(0))
    lab.wait_for(run.task(0), "CANCELLED", timeout=15)
    lab.scancel("-s", "USR2", run.task(1))  # and in the middle of stopping, too
    lab.scancel(run.array)
    run.wait(15)
    time.sleep(lab_requeue_seconds() + 2)
    assert lab.queue_empty()
    assert [len(run.attempts(task)) for task in range(3)] == [1, 1, 1]
    assert [lab.restarts(run.task(task)) for task in range(3)] == [0, 0, 0]
    assert run.attempts(0)[0].stop == run.attempts(2)[0].stop == "now"
    assert run.pids() == []
    assert not list((run.folder / ".recaption/leases").iterdir())


def lab_requeue_seconds() -> float:
    """How long the cluster keeps a requeued job waiting (LAB_CRED_EXPIRE and a second)."""
    return 6.0


def test_signal_before_the_task_listens(lab: Lab, make_shards: ShardMaker, tmp_path: Path) -> None:
    shards = make_shards(12, 60)
    words = ["slurm.tasks=1", "slurm.setup=[sleep 2]"]
    run = Run.launch(lab, tmp_path / "run", shards.words(0, 1), *words)
    lab.wait_until(
        lambda: run.pids(text="submitit") or run.attempts(),
        20,
        "its python",
    )
    assert not run.attempts()
    lab.scancel("-s", "USR2", run.array)
    lab.wait_until(lambda: lab.restarts(run.array) == 1, 20, "it to be requeued")
    run.wait(40)
    assert run.published() == 2


def test_attempts_that_come_to_nothing_end(
    lab: Lab, make_shards: ShardMaker, tmp_path: Path
) -> None:
    shards = make_shards(12, 60)
    words = ["engine.rate=0.001", "slurm.tasks=1", "task.attempts=2"]
    run = Run.launch(lab, tmp_path / "run", shards.words(0, 1), *words, "slurm.signal_delay=4")

    def engines_were_ready(number: int) -> bool:
        """Before that, a signal would call the attempt off."""
        attempts = run.attempts()
        return len(attempts) == number and any(e.get("engine_seconds") for e in attempts[-1].events)

    for number in (1, 2):
        lab.wait_until(lambda n=number: engines_were_ready(n), 30, f"attempt {number}")
        lab.scancel("-s", "USR2", run.array)
    run.wait(20)
    assert lab.state(run.array) == "FAILED"
    assert lab.restarts(run.array) == 1
    reasons = [a.events[-1]["reason"] for a in run.attempts()]
    assert reasons[0] == ""
    assert "no shard and no sample finished in 2 attempts" in reasons[1]
    status = command(lab, "status", str(run.folder), cwd=tmp_path)
    assert status.returncode == 1
    assert "no shard and no sample finished in 2 attempts" in status.stdout
    assert "needs retry" in status.stdout


def test_a_held_task_shows(lab: Lab, make_shards: ShardMaker, tmp_path: Path) -> None:
    shards = make_shards(12, 60)
    words = ["slurm.tasks=2", "slurm.additional.hold=true"]
    run = Run.launch(lab, tmp_path / "run", shards.words(0, 1), *words)
    lab.scontrol("hold", run.array)
    for option in ((), ("--json",)):
        status = command(lab, "status", str(run.folder), *option, cwd=tmp_path)
        assert status.returncode == 1
        assert "held" in status.stdout
        assert "JobHeldAdmin" in status.stdout
    lab.scontrol("release", run.array)
    run.wait(40)
    assert_whole(
        run.folder,
        shards.names[:2],
        {
            key: caption
            for key, caption in shards.captions.items()
            if key[:6] in ("s00000", "s00001")
        },
    )
