"""What a run has come to: one directory scan and the tasks' logs, markers only where needed."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from recaption.run.paths import RunPaths
from recaption.run.record import Run
from recaption.run.tasklog import read_log


@dataclass
class TaskState:
    """One attempt of a task, from its log."""

    submission: int
    task: int
    attempt: str
    start: dict[str, Any] = field(default_factory=dict)
    beat: dict[str, Any] = field(default_factory=dict)
    stop: dict[str, Any] = field(default_factory=dict)
    last_sign: float = 0.0


@dataclass
class RunState:
    """Counts of a run's shards and samples."""

    total: int
    done: dict[str, dict[str, int]]  # published shard → samples per state
    failed: dict[str, dict[str, Any]]  # shard → its failure record
    tasks: list[TaskState]

    def samples(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for per_shard in self.done.values():
            counts.update(per_shard)
        return counts


def scan(paths: RunPaths, run: Run) -> RunState:
    """Read the state of a run."""
    marked = paths.marked()
    tasks = []
    logged: dict[str, dict[str, int]] = {}
    with os.scandir(paths.tasks) as entries:
        names = sorted(e.name for e in entries if e.name.endswith(".jsonl"))
    for name in names:
        tasks.append(_read_task(paths, name, logged))
    done = {}
    for shard in run.shards:
        if shard.name in marked:
            counts = logged.get(shard.name)
            done[shard.name] = marker(paths, shard.name)["counts"] if counts is None else counts
    failed = {}
    with os.scandir(paths.failures) as entries:
        for entry in entries:
            shard_name = f"{entry.name.removesuffix('.json')}.tar"
            if shard_name not in marked:
                with open(entry.path, "rb") as file:
                    failed[shard_name] = json.load(file)
    return RunState(len(run.shards), done, failed, tasks)


def marker(paths: RunPaths, name: str) -> dict[str, Any]:
    """A published shard's marker."""
    record: dict[str, Any] = json.loads(paths.marker(name).read_bytes())
    return record


def _read_task(paths: RunPaths, name: str, logged: dict[str, dict[str, int]]) -> TaskState:
    label, _, attempt = name.removesuffix(".jsonl").partition("@")
    submission, task = label.split("-")
    state = TaskState(int(submission), int(task), attempt)
    for event in read_log(paths.tasks / name):
        state.last_sign = event["time"]
        match event["event"]:
            case "start":
                state.start = event
            case "published" if event["counts"]:
                logged[event["shard"]] = event["counts"]
            case "beat":
                state.beat = event
            case "stop":
                state.stop = event
    return state
