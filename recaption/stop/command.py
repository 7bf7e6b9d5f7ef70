"""The command: cancels a run's jobs in Slurm and its tasks on this machine, and waits for their end."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import replace

from recaption.cli import slurm
from recaption.cli.at_work import AtWork, at_work
from recaption.errors import TaskError, UserError
from recaption.run import publish
from recaption.run.liveness import terminate
from recaption.run.paths import RunPaths
from recaption.run.record import open_run

SECONDS = 90.0  # to wait for tasks to end; Slurm kills them after its KillWait
POLL = 0.5


def stop(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    paths, _ = open_run(options.run)
    found = at_work(paths)
    if found.unanswered:
        raise TaskError(_unknown(found))
    if not found:
        print(f"nothing works on {paths.root}")
        return 0
    print(f"stopping {found}", flush=True)
    _stop(paths, found)
    canceled = {*found.jobs}
    deadline = time.monotonic() + SECONDS
    while ((left := at_work(paths)) or left.unanswered) and time.monotonic() < deadline:
        # a launch that was submitting has its jobs only now
        _stop(paths, replace(left, jobs=[job for job in left.jobs if job not in canceled]))
        canceled.update(left.jobs)
        time.sleep(POLL)
    if left.unanswered:
        raise TaskError(_unknown(left))
    if left:
        print(f"still at work: {left}")
        return 1
    print(f"stopped; to go on: python -m recaption.retry {paths.root}")
    return 0


def _unknown(found: AtWork) -> str:
    jobs = " ".join(found.unanswered)
    return f"stop: squeue does not answer, so what becomes of job {jobs} is not known; try again"


def _stop(paths: RunPaths, found: AtWork) -> None:
    if found.jobs and (refusal := slurm.cancel(found.jobs)):
        raise UserError(f"stop: scancel {' '.join(found.jobs)}: {refusal}")
    for number in found.launches:  # so that a waiting launcher starts no further task
        publish.create(paths.stop(number), b"", paths.temporary(paths.stop(number), "stop"))
    _end_tasks(found)


def _end_tasks(found: AtWork) -> None:
    for label, process in found.tasks.items():
        try:
            terminate(process)
        except PermissionError:
            who = f"stop: task {label} (process {process.pid})"
            raise UserError(f"{who} is another user's, who has to stop it") from None
