"""The cluster itself behaves as the other tests here take for granted."""

from __future__ import annotations

import os
from pathlib import Path

from slurm.lab import Lab

WORK = (
    "echo start $SLURM_ARRAY_TASK_ID ${SLURM_RESTART_COUNT:-0}"
    " $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"
)


def lines(folder: Path) -> list[list[str]]:
    return sorted(
        line.split()
        for file in folder.glob("*.out")
        for line in file.read_text().splitlines()
        if line.startswith("start")
    )


def sleepers(lab: Lab, task: str) -> list[int]:
    return [pid for pid in lab.job_pids(task) if os.readlink(f"/proc/{pid}/exe").endswith("sleep")]


def test_array_runs_on_distinct_nodes_with_gpus(lab: Lab, tmp_path: Path) -> None:
    options = ["--array=0-2", "--gpus-per-node=4", f"--output={tmp_path}/%a.out"]
    job = lab.sbatch(*options, wrap=f"{WORK}; sleep 1")
    lab.wait_until(lab.queue_empty, 30, f"array {job} to end")
    rows = lines(tmp_path)
    assert [row[1] for row in rows] == ["0", "1", "2"]
    assert {(row[2], row[4]) for row in rows} == {("0", "0,1,2,3")}
    assert len({row[3] for row in rows}) == 3


def test_preempted_task_is_requeued(lab: Lab, tmp_path: Path) -> None:
    options = [
        "--partition=low0",
        "--array=0-0",
        "--open-mode=append",
        f"--output={tmp_path}/%a.out",
    ]
    job = lab.sbatch(*options, wrap=f"{WORK}; sleep 300")
    lab.wait_until(lambda: len(lines(tmp_path)) == 1, 20, "the first attempt")
    lab.preempt(1)
    lab.wait_until(lambda: len(lines(tmp_path)) == 2, 40, "the second attempt")
    assert [row[2] for row in lines(tmp_path)] == ["0", "1"]
    assert lab.restarts(f"{job}_0") == 1
    lab.scancel(job)
    lab.wait_until(lab.queue_empty, 20, "the cancelled job to go")


def test_lost_node_requeues_and_leaves_the_old_process(lab: Lab, tmp_path: Path) -> None:
    options = [
        "--partition=low",
        "--array=0-0",
        "--open-mode=append",
        f"--output={tmp_path}/%a.out",
    ]
    job = lab.sbatch(*options, wrap=f"srun sh -c '{WORK}; exec sleep 333'")
    task = f"{job}_0"
    lab.wait_until(lambda: sleepers(lab, task), 20, "the first attempt")
    [orphan] = sleepers(lab, task)
    node = lab.node_of(task)
    lab.kill_node(node)
    lab.wait_until(lambda: lab.restarts(task) == 1, 40, "the task to be requeued")
    assert os.path.exists(f"/proc/{orphan}/exe")
    lab.wait_for(task, "RUNNING", timeout=30)
    assert lab.node_of(task) != node
    assert os.path.exists(f"/proc/{orphan}/exe")
    lab.revive_node(node)
    lab.scancel(job)
    lab.wait_until(lab.queue_empty, 20, "the cancelled job to go")
    os.kill(orphan, 9)
