"""One run's numbers, which `status` shows or prints as JSON."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from recaption.cli.tasks import HELD, LIVE, PENDING, UNKNOWN, Task, read_submissions, tasks_of
from recaption.run.paths import RunPaths
from recaption.run.record import Run, Submission
from recaption.run.rows import STATES, without_numbers
from recaption.run.scan import RunState, TaskState, scan

COMPLETE, RUNNING, WAITING, NEEDS_RETRY = "complete", "running", "waiting", "needs retry"
FORMAT = 1
FREQUENT = 20


@dataclass(frozen=True)
class Reason:
    """A reason why shards or samples were not made, with one example."""

    what: str  # shard or sample
    reason: str
    count: int
    example: str  # SHARD, or SHARD/KEY
    log: str


@dataclass(frozen=True)
class Overview:
    """A run's state; rates are in samples (images) per second, times in seconds."""

    run: str
    fingerprint: str
    state: str
    shards: dict[str, int]
    samples: dict[str, int]
    rate_now: float
    rate_overall: float
    seconds_left: float | None
    tasks: list[Task]
    given_up: dict[str, str]  # shard → why
    reasons: list[Reason]

    @property
    def complete(self) -> bool:
        return self.state == COMPLETE

    def to_json(self) -> dict[str, Any]:
        """The documented record (see `recaption.status --help`)."""
        return {
            "format": FORMAT,
            "run": self.run,
            "fingerprint": self.fingerprint,
            "state": self.state,
            "shards": self.shards,
            "samples": self.samples,
            "images_per_second": {
                "now": round(self.rate_now, 3),
                "overall": round(self.rate_overall, 3),
            },
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left),
            "tasks": [{**asdict(t), "rate": round(t.rate, 3)} for t in self.tasks],
            "given_up": self.given_up,
            "failures": [asdict(r) for r in self.reasons],
        }


def overview(paths: RunPaths, run: Run) -> Overview:
    """The state of a run, from one directory scan, its tasks' logs, and Slurm's queue if it has one."""
    state = scan(paths, run)
    submissions = read_submissions(paths)
    tasks = tasks_of(paths, state, submissions)
    counts = state.samples()
    published = sum(counts.values())
    in_progress = max(0, sum(t.settled for t in state.tasks) + state.inherited - published)
    rate_now, rate_overall = sum(t.rate for t in tasks), _overall(state.tasks)
    left = _samples_left(run, state, submissions, in_progress)
    live = any(t.live for t in tasks)
    seconds_left = None
    if live and left is not None and (rate := rate_now or rate_overall):
        seconds_left = left / rate
    done, failed = len(state.done), len(state.failed)
    return Overview(
        run=str(paths.root),
        fingerprint=run.fingerprint,
        state=_state(state, tasks),
        shards={
            "total": state.total,
            "done": done,
            "failed": failed,
            "given_up": len(state.given_up),
            "left": state.unsettled - failed,
        },
        samples={
            "published": published,
            **{name: counts[name] for name in STATES},
            "in_progress": in_progress if state.unsettled else 0,
        },
        rate_now=rate_now,
        rate_overall=rate_overall,
        seconds_left=seconds_left,
        tasks=tasks,
        given_up=state.given_up,
        reasons=_reasons(paths, state, tasks),
    )


def _state(state: RunState, tasks: list[Task]) -> str:
    if not state.unsettled:
        return COMPLETE
    states = {t.state for t in tasks}
    if not states & LIVE:
        return NEEDS_RETRY
    if states & LIVE <= {PENDING, HELD, UNKNOWN}:
        return HELD if HELD in states else WAITING
    return RUNNING


def _overall(attempts: list[TaskState]) -> float:
    """Samples per second over the time in which any task was at work."""
    spans = sorted((a.start["time"], a.last_sign) for a in attempts if a.start and a.settled)
    worked, end = 0.0, float("-inf")
    for first, last in spans:
        worked += max(0.0, last - max(first, end))
        end = max(end, last)
    return sum(a.settled for a in attempts) / worked if worked else 0.0


def _samples_left(
    run: Run, state: RunState, submissions: list[Submission], in_progress: int
) -> float | None:
    """Samples of selected shards that have no state yet, judged by the published shards."""
    selected = {position for s in submissions for position in s.selected}
    settled = {*state.done, *state.failed, *state.given_up}
    left = [
        shard
        for position, shard in enumerate(run.shards)
        if position in selected and shard.name not in settled
    ]
    known = [shard for shard in run.shards if shard.name in state.done]
    if not known:
        return None if left else 0.0
    samples = float(sum(sum(state.done[shard.name].values()) for shard in known))
    estimate = samples / len(known) * len(left)
    size = sum(shard.size or 0 for shard in known)
    if size and all(shard.size is not None for shard in [*known, *left]):
        estimate = samples / size * sum(shard.size or 0 for shard in left)
    return max(0.0, estimate - in_progress)


def _reasons(paths: RunPaths, state: RunState, tasks: list[Task]) -> list[Reason]:
    """The most frequent reasons, those of whole shards first."""
    logs = {f"{t.submission}-{t.task}": t.log for t in tasks}
    shards: dict[str, list[Any]] = {}
    for name, record in state.failed.items():
        kind = without_numbers(record["reason"])
        log = logs.get(record.get("label", ""), str(paths.failure(name)))
        shards.setdefault(kind, [0, name, log, record["reason"]])[0] += 1
    samples: dict[str, list[Any]] = {}
    for name, reasons in state.reasons.items():
        for kind, (count, key) in reasons.items():
            entry = samples.setdefault(kind, [0, f"{name}/{key}", str(paths.sidecar(name))])
            entry[0] += count
    found = [Reason("shard", e[3], e[0], e[1], e[2]) for e in shards.values()]
    found.sort(key=lambda r: -r.count)
    other = [Reason("sample", kind, *e) for kind, e in samples.items()]
    other.sort(key=lambda r: -r.count)
    return found[:FREQUENT] + other[:FREQUENT]


def age(since: float | None) -> float | None:
    """Seconds since a moment; None if there is none."""
    return None if since is None else max(0.0, time.time() - since)
