"""The state of a run, from one directory scan, the tasks' logs, and markers only if needed."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recaption.run import shared
from recaption.run.paths import INHERITED, RunPaths, entries
from recaption.run.record import Run
from recaption.run.rows import CAPTIONED, DAMAGED
from recaption.run.tasklog import read_log

GIVEN_UP = "given_up"  # field of a marker: why the shard was given up
SHOWN = 5
RATE_SECONDS = 120.0  # over which the present rate is measured


@dataclass
class TaskState:
    """One attempt of a task, from its log."""

    submission: int
    task: int
    attempt: str
    start: dict[str, Any] = field(default_factory=dict)
    heartbeats: deque[dict[str, Any]] = field(default_factory=deque)  # of the last RATE_SECONDS
    stop: dict[str, Any] = field(default_factory=dict)
    told_to_stop: bool = False
    published: int = 0
    last_sign: float = 0.0

    @property
    def heartbeat(self) -> dict[str, Any]:
        """The latest heartbeat; empty before the first."""
        return self.heartbeats[-1] if self.heartbeats else {}

    @property
    def settled(self) -> int:
        """How many samples this attempt has settled, in any state."""
        count: int = self.heartbeat.get("settled", 0)
        return count

    def fewer_engines(self) -> str:
        """Which of its engines it has given up, and why; '' if none."""
        latest = self.heartbeat
        if not latest.get("given_up"):
            return ""
        return f"{latest['engines']} of {latest['engines_wanted']} engines: {'; '.join(latest['given_up'])}"

    def rate(self) -> float:
        """Samples per second lately; 0.0 while nothing is known."""
        if not self.heartbeats:
            return 0.0
        first = self.heartbeats[0] if len(self.heartbeats) > 1 else {"settled": 0, "seconds": 0.0}
        seconds = self.heartbeat["seconds"] - first["seconds"]
        rate: float = (self.settled - first["settled"]) / seconds if seconds > 0 else 0.0
        return rate

    def add_heartbeat(self, event: dict[str, Any]) -> None:
        self.heartbeats.append(event)
        while (
            len(self.heartbeats) > 2 and event["time"] - self.heartbeats[0]["time"] > RATE_SECONDS
        ):
            self.heartbeats.popleft()


@dataclass
class RunState:
    """Counts of a run's shards and samples."""

    total: int
    done: dict[str, dict[str, int]]  # published shard → samples per state
    failed: dict[str, dict[str, Any]]  # shard → why it could not be made: reason, tries
    tasks: list[TaskState]  # every attempt of every task
    given_up: dict[str, str] = field(default_factory=dict)  # shard → why
    reasons: dict[str, dict[str, list[Any]]] = field(default_factory=dict)  # per published shard
    again: dict[str, dict[str, int]] = field(default_factory=dict)  # see rows.no_better
    inherited: int = 0  # samples of shards that were taken over from a parent run

    @property
    def unsettled(self) -> int:
        """Shards that are neither published nor given up."""
        return self.total - len(self.done) - len(self.given_up)

    def samples(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for per_shard in self.done.values():
            counts.update(per_shard)
        return counts

    def sizes(self, run: Run) -> dict[str, int]:
        """How many samples the tar of each published shard has; 0 if its marker is damaged."""
        return {
            name: sum(counts.values()) if run.captions_only else counts.get(CAPTIONED, 0)
            for name, counts in self.done.items()
        }

    def counted(self) -> str:
        """How many samples of published shards are in each state, as commands say it."""
        counts = sorted(self.samples().items())
        return ", ".join(f"{n} {status}" for status, n in counts if n) or "none"


@dataclass
class _Logged:
    """What all tasks' logs say about shards."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    reasons: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    again: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    # at some time; their markers tell whether they still are
    given_up: set[str] = field(default_factory=set)
    inherited: set[str] = field(default_factory=set)


def scan(paths: RunPaths, run: Run) -> RunState:
    """Read the state of a run."""
    marked = paths.marked()
    tasks, logged = [], _Logged()
    for name in sorted(_names(paths.tasks, ".jsonl")):
        task = _read_task(paths, name, logged)
        if task:
            tasks.append(task)
    done, given_up = {}, {}
    for name in (shard.name for shard in run.shards if shard.name in marked):
        if name in logged.counts and name not in logged.given_up:
            done[name] = logged.counts[name]
        elif GIVEN_UP in (record := _marker(paths, name)):
            given_up[name] = record[GIVEN_UP]
        else:
            done[name] = record.get("counts", {})
            logged.again[name] = record.get("again", {})
    failed = {name: event for name, event in logged.failed.items() if name not in marked}
    for entry in _names(paths.failures, ".json"):
        name = f"{entry.removesuffix('.json')}.tar"
        if name not in marked and name not in failed:
            failed[name] = _failure(paths, name)
    return RunState(
        total=len(run.shards),
        done=done,
        failed=failed,
        tasks=tasks,
        given_up=given_up,
        reasons={name: found for name, found in logged.reasons.items() if name in done},
        again={name: counts for name, counts in logged.again.items() if counts and name in done},
        inherited=sum(sum(done[name].values()) for name in logged.inherited if name in done),
    )


def marker(paths: RunPaths, name: str) -> dict[str, Any]:
    """A published shard's marker."""
    record: dict[str, Any] = json.loads(shared.content(paths.marker(name)))
    return record


def named(given_up: Iterable[str]) -> str:
    """The remark that shards were given up and are passed over; '' if none was."""
    names = list(given_up)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"given up: {', '.join(names[:SHOWN])}{more}" if names else ""


def salvages(record: Mapping[str, Any], run: Run) -> bool:
    """Whether a published shard was read with data.damaged=salvage, by its marker."""
    return str(record.get(DAMAGED) or run.identity.get(DAMAGED)) == "salvage"


def _names(folder: Path, suffix: str) -> list[str]:
    return [name for name in entries(folder) if name.endswith(suffix)]


def _marker(paths: RunPaths, name: str) -> dict[str, Any]:
    """A marker; empty if it is damaged, which verify reports."""
    try:
        record: Any = marker(paths, name)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _failure(paths: RunPaths, name: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(shared.content(paths.failure(name)))
    except PermissionError:
        raise
    except (OSError, ValueError):
        return {"reason": "unknown", "tries": 0}  # it is being published or written at this moment
    return record


def _read_task(paths: RunPaths, name: str, logged: _Logged) -> TaskState | None:
    label, _, attempt = name.removesuffix(".jsonl").partition("@")
    submission, _, task = label.partition("-")
    if label != INHERITED and not (submission.isdigit() and task.isdigit()):
        return None
    inherited = label == INHERITED
    state = (
        TaskState(0, 0, attempt) if inherited else TaskState(int(submission), int(task), attempt)
    )
    for event in read_log(paths.tasks / name):
        state.last_sign = event["time"]
        match event["event"]:
            case "start":
                state.start = event
            case "published":
                state.published += 1
                _published(event, logged)
                if inherited:
                    logged.inherited.add(event["shard"])
            case "given_up":
                logged.given_up.add(event["shard"])
            case "failed":
                logged.failed[event["shard"]] = {**event, "label": label}
            case "beat":
                state.add_heartbeat(event)
            case "stopping":
                state.told_to_stop = True
            case "stop":
                state.stop = event
    return None if inherited else state


def _published(event: dict[str, Any], logged: _Logged) -> None:
    if event["counts"]:
        logged.counts[event["shard"]] = event["counts"]
    if event.get("again"):
        logged.again[event["shard"]] = event["again"]
    if event.get("reasons"):
        logged.reasons[event["shard"]] = event["reasons"]
