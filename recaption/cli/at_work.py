"""Finds what is working on a run: jobs in Slurm's queue, and tasks alive on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from recaption.cli import slurm
from recaption.cli.tasks import on_cluster
from recaption.run.liveness import Process, is_alive, is_gone, this_process
from recaption.run.paths import RunPaths
from recaption.run.record import Submission, read_submission, submission_numbers
from recaption.run.tasklog import read_log

# how long submitting may take; a launch on another machine cannot be seen to end
SUBMITTING_SECONDS = 120.0


@dataclass(frozen=True)
class AtWork:
    """Everything found at work on a run; false if nothing was found, and str() names it all.

    `unanswered` holds jobs of which nothing is known, because squeue does not answer.
    """

    jobs: list[str] = field(default_factory=list)  # Slurm's ids of arrays
    tasks: dict[str, Process] = field(default_factory=dict)  # on this machine, by SUBMISSION-TASK
    # submissions that a command on this machine waits for or makes
    launches: list[int] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.jobs or self.tasks or self.launches)

    def __str__(self) -> str:
        jobs = [f"job {job}" for job in self.jobs]
        tasks = [f"task {label} (process {p.pid})" for label, p in self.tasks.items()]
        idle = set(self.launches) - {int(label.split("-")[0]) for label in self.tasks}
        return ", ".join([*jobs, *tasks, *(f"submission {n}" for n in sorted(idle))])


def at_work(paths: RunPaths, numbers: Iterable[int] | None = None) -> AtWork:
    """Look for work of every submission, or of those in `numbers`.

    Asks Slurm's queue, and looks for processes on this machine by pid and start time.
    """
    chosen = submission_numbers(paths) if numbers is None else numbers
    submissions = [read_submission(paths, number) for number in chosen]
    ids = sorted({job.split("_")[0] for s in submissions for job in s.jobs})
    queue = slurm.jobs(ids)
    known = {} if queue is None else queue
    jobs = sorted({job.split("_")[0] for job, entry in known.items() if not entry.ending})
    tasks: dict[str, Process] = {}
    launches: list[int] = []
    for submission in submissions:
        if _is_submitted(submission):
            launches.append(submission.number)
            continue
        if on_cluster(submission):
            continue
        ended = _local(paths, submission, tasks)
        recorded = [Process(**record) for record in submission.processes]
        alive = {n: p for n, p in enumerate(recorded) if is_alive(p) and p.pid != os.getpid()}
        if submission.config.get("wait") is False:  # its tasks may be about to start
            tasks.update({f"{submission.number}-{n}": process for n, process in alive.items()})
        elif alive and ended < len(submission.slices):
            launches.append(submission.number)
    return AtWork(jobs, tasks, launches, ids if queue is None else [])


def _is_submitted(submission: Submission) -> bool:
    """Whether a command is about to record its jobs or processes.

    A command on another machine counts as alive for SUBMITTING_SECONDS.
    """
    submitter = submission.submitter and Process(**submission.submitter)
    if not submitter or submitter == this_process() or is_gone(submitter):
        return False
    return is_alive(submitter) or time.time() - submission.created < SUBMITTING_SECONDS


def _local(paths: RunPaths, submission: Submission, alive: dict[str, Process]) -> int:
    """Find a submission's tasks that are alive on this machine; returns how many have ended."""
    ended = 0
    for task in range(len(submission.slices)):
        logs = [read_log(path) for path in paths.task_logs(submission.number, task)]
        for events in logs:
            process = _process(events)
            if process and is_alive(process):
                alive[f"{submission.number}-{task}"] = process
        ended += any(e["event"] == "stop" for events in logs for e in events)
    return ended


def _process(events: list[dict[str, Any]]) -> Process | None:
    """The process of an attempt that has not ended, from its log; 0.1.0's logs lack it."""
    start = next((e for e in events if e["event"] == "start"), {})
    if not start.get("process") or any(e["event"] == "stop" for e in events):
        return None
    return Process(**start["process"])
