"""The state of a run's tasks, from their logs and from Slurm or the processes on this machine."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from recaption.cli import slurm
from recaption.run import shared
from recaption.run.paths import RunPaths
from recaption.run.record import Submission, read_submission, submission_numbers
from recaption.run.scan import RunState, TaskState

SILENT_SECONDS = 180.0  # three times the longest interval between two heartbeats
METRICS = ("tokens_per_second", "starved", "ready", "flying", "memory_bytes")
YOUNG_SECONDS = 60.0  # age of a submission whose tasks may not have started yet
NEVER = "never started"
TAIL, LONGEST = 4096, 200  # bytes read from the end of a log, characters shown of a line

PENDING, STARTING, RUNNING, STOPPING = "pending", "starting", "running", "stopping"
HELD, STUCK = "held", "stuck"
DONE, STOPPED, FAILED, LOST, UNKNOWN = "done", "stopped", "failed", "lost", "unknown"
LIVE = {PENDING, STARTING, RUNNING, STOPPING, HELD, STUCK, UNKNOWN}
BAD = {HELD, STUCK, FAILED, LOST}


@dataclass(frozen=True)
class Task:
    """One element of a submission, by its latest attempt."""

    submission: int
    task: int
    job: str  # Slurm's id, or the local label SUBMISSION-TASK
    node: str
    state: str
    reason: str
    attempts: int
    published: int  # shards published by all attempts
    settled: int  # samples settled by all attempts
    rate: float  # samples/s lately
    restarts: int  # restarts of engines in the latest attempt
    engines: int | None  # still in use in the latest attempt; None until it reports
    engines_wanted: int | None
    metrics: dict[str, float]  # the METRICS of its latest heartbeat
    started: float | None
    last_sign: float | None
    log: str

    @property
    def live(self) -> bool:
        """Whether it is at work or may still start."""
        return self.state in LIVE


def read_submissions(paths: RunPaths) -> list[Submission]:
    return [read_submission(paths, number) for number in submission_numbers(paths)]


def tasks_of(paths: RunPaths, state: RunState, submissions: list[Submission]) -> list[Task]:
    """Every task of every submission, in order."""
    attempts: dict[tuple[int, int], list[TaskState]] = defaultdict(list)
    for attempt in state.tasks:
        attempts[attempt.submission, attempt.task].append(attempt)
    found: list[Task] = []
    ids = sorted({job.split("_")[0] for s in submissions for job in s.jobs})
    queue = slurm.jobs(ids)
    for submission in submissions:
        made = [
            _task(paths, submission, number, attempts[submission.number, number], queue)
            for number in range(len(submission.slices))
        ]
        if not on_cluster(submission):
            made = _waiting(made, submission)
        found += made
    return _accounted(found)


def on_cluster(submission: Submission) -> bool:
    kind: str = submission.config["slurm"]["kind"]
    return kind == "cluster"


def _task(
    paths: RunPaths,
    submission: Submission,
    number: int,
    attempts: list[TaskState],
    queue: dict[str, slurm.Job] | None,
) -> Task:
    attempts = sorted(attempts, key=lambda a: a.start.get("time", 0.0))
    latest = attempts[-1] if attempts else TaskState(submission.number, number, "")
    if on_cluster(submission):
        job = submission.jobs[number] if number < len(submission.jobs) else ""
        entry = queue.get(job) if queue is not None else None
        state, reason = _cluster_state(latest, entry, known=queue is not None)
        log = str(paths.output_log(f"{job}_0"))
        if not job:
            young = time.time() - submission.created < YOUNG_SECONDS
            state, reason = (PENDING, "") if young else (STOPPED, "not submitted")
    else:
        job = f"{submission.number}-{number}"
        entry = None
        state, reason = _local_state(latest)
        log = str(paths.output_log(job))
    if state == LOST and not latest.start:
        reason = never_started(log)
    if fewer := latest.fewer_engines():
        reason = f"{reason}; {fewer}" if reason else fewer
    return Task(
        submission=submission.number,
        task=number,
        job=job,
        node=(entry.node if entry else "") or latest.start.get("node", ""),
        state=state,
        reason=reason,
        attempts=len(attempts),
        published=sum(a.published for a in attempts),
        settled=sum(a.settled for a in attempts),
        rate=latest.rate() if state == RUNNING else 0.0,
        restarts=latest.heartbeat.get("restarts", 0),
        engines=latest.heartbeat.get("engines"),
        engines_wanted=latest.heartbeat.get("engines_wanted"),
        metrics={k: v for k, v in latest.heartbeat.items() if k in METRICS},
        started=latest.start.get("time"),
        last_sign=latest.last_sign or None,
        log=log,
    )


def _cluster_state(latest: TaskState, job: slurm.Job | None, *, known: bool) -> tuple[str, str]:
    if job is None:
        if known:
            return _ended(latest)
        return _unanswered(latest)
    if job.held:
        return HELD, job.reason
    if job.state in ("PENDING", "REQUEUED"):
        return PENDING, job.reason
    if latest.stop:
        return STOPPING, f"{job.state.lower()}, attempt ended"
    return _alive(latest)


def _unanswered(latest: TaskState) -> tuple[str, str]:
    """A Slurm task's state from its log alone, because squeue is missing or does not answer."""
    if latest.stop:
        return _ended(latest)
    return _alive(latest) if latest.start else (UNKNOWN, "squeue does not answer")


def _local_state(latest: TaskState) -> tuple[str, str]:
    if latest.stop:
        return _ended(latest)
    here = latest.start.get("node") == socket.gethostname()
    if latest.start and here and not _is_there(latest):
        return LOST, "its process is gone"
    return _alive(latest) if latest.start else (PENDING, "")


def _alive(latest: TaskState) -> tuple[str, str]:
    if not latest.start:
        return STARTING, ""
    if latest.told_to_stop:
        return STOPPING, "by a signal"
    silent = time.time() - latest.last_sign
    if silent > SILENT_SECONDS:
        return STUCK, f"no sign of life for {silent / 60:.0f} min"
    return (RUNNING, "") if latest.settled else (STARTING, "")


def _ended(latest: TaskState) -> tuple[str, str]:
    match latest.stop.get("why"):
        case "done":
            return DONE, ""
        case "drain" | "now":
            return STOPPED, "by a signal"
        case "error":
            return FAILED, latest.stop.get("reason", "")
        case str(other):
            return STOPPED, other
    return LOST, "killed" if latest.start else NEVER


def never_started(log: str) -> str:
    """Why a task that wrote no log of its own ended: the last line of its output, if there is one."""
    try:
        lines = shared.content(Path(log))[-TAIL:].decode(errors="replace").split("\n")
    except OSError:
        return NEVER
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{NEVER}: {last[:LONGEST]}" if last else NEVER


def _is_there(latest: TaskState) -> bool:
    import psutil

    try:
        process = psutil.Process(latest.start["pid"])
        dead = process.status() == psutil.STATUS_ZOMBIE
        return not dead and bool(process.create_time() <= latest.start["time"] + 1)
    except psutil.Error:
        return False


def _waiting(tasks: list[Task], submission: Submission) -> list[Task]:
    """Mark local tasks without a log as lost, unless their launcher may still start them."""
    waits = any(t.live and t.attempts for t in tasks)
    waits |= time.time() - submission.created < YOUNG_SECONDS and not all(t.attempts for t in tasks)
    return [
        t if waits or t.state != PENDING else replace(t, state=LOST, reason=never_started(t.log))
        for t in tasks
    ]


def _accounted(tasks: list[Task]) -> list[Task]:
    """Add how lost Slurm tasks ended, as far as Slurm's accounting knows."""
    lost = [t.job for t in tasks if t.state == LOST and t.job and "-" not in t.job]
    known = slurm.ended(lost[:100])
    return [
        replace(t, reason=_ending(known[t.job], t.reason))
        if t.state == LOST and t.job in known
        else t
        for t in tasks
    ]


def _ending(known: str, seen: str) -> str:
    """How a task ended: as accounting says, else as its output says."""
    return f"{known}, {seen}" if seen.startswith(f"{NEVER}:") else known
