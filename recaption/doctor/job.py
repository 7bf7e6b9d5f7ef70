"""Submits one job with launch's settings, to check what the nodes are like."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from recaption.cli import slurm
from recaption.config.schema import Config
from recaption.doctor.check import Check, fail, ok, warn
from recaption.doctor.folder import probing
from recaption.doctor.rendezvous import (
    HERE_FIRST,
    HERE_SECOND,
    NODE,
    REPORT,
    SCONTROL,
    Report,
    read_report,
    scontrol_line,
    visit,
    wait_for,
    write,
)
from recaption.launch.sbatch import Refused, calling_sbatch, make_executor
from recaption.run import shared
from recaption.run.paths import RunPaths
from recaption.run.record import plain_config

REPORT_SECONDS = 600.0  # in which a running job has to make its checks
LATE_SECONDS = 15.0  # in which an ended job's files have to become visible
LAST_LINES, SHOWN = 3, 500  # lines of its log that are shown, and their characters
QUEUE_SECONDS = 1.0  # between two calls of squeue
PATIENCE = ("Priority", "Resources", "None", "", "BeginTime", "Dependency", "JobArrayTaskLimit")


class OneJob:
    """The submitted job and its state in the queue."""

    def __init__(self, job_id: str) -> None:
        self.id = job_id
        self.last_look = float("-inf")
        self.seen: slurm.Job | None = slurm.Job("PENDING", "", "")

    def look(self) -> slurm.Job | None:
        """Its entry in the queue, None once it has left; the last one while squeue does not answer."""
        if time.monotonic() - self.last_look >= QUEUE_SECONDS:
            found = slurm.jobs([self.id])
            if found is not None:
                self.seen = found.get(self.id)
            self.last_look = time.monotonic()
        return self.seen

    def cancel(self) -> None:
        slurm.cancel([self.id])


def check_job(config: Config, folder: Path, seconds: float) -> list[Check]:
    """Submit the job, wait at most `seconds` for its start, and collect what it found."""
    with probing(folder) as probe:
        paths = RunPaths(probe)
        paths.logs.mkdir(parents=True)
        write(probe, HERE_FIRST)
        try:
            job = _submit(config, paths)
        except Refused as e:
            return [fail("job", f"sbatch refused it: {e}", "change the slurm.* key it is about")]
        try:
            return list(_follow(job, paths, seconds, config.task.lease_seconds))
        finally:
            job.cancel()


def _submit(config: Config, paths: RunPaths) -> OneJob:
    executor = make_executor(paths, config, array=False)
    setup = [*executor.parameters["setup"], scontrol_line(paths.root)]
    executor.update_parameters(job_name="recaption-doctor", setup=setup)
    with calling_sbatch(executor, paths):
        job = executor.submit(visit, str(paths.root), plain_config(config))
    return OneJob(str(job.job_id))


def _follow(job: OneJob, paths: RunPaths, seconds: float, lease: float) -> Iterator[Check]:
    print(f"job {job.id} submitted; waiting for it", file=sys.stderr, flush=True)
    started = time.monotonic()
    while (entry := job.look()) and entry.state in ("PENDING", "CONFIGURING"):
        if time.monotonic() - started > seconds:
            yield _never_started(job.id, entry, seconds)
            return
        time.sleep(QUEUE_SECONDS / 4)
    waited = time.monotonic() - started

    def there() -> bool:
        return job.look() is not None

    seen = wait_for(paths.root / NODE, REPORT_SECONDS, there)
    if seen is None:  # it has ended; what it wrote may still be on its way
        seen = wait_for(paths.root / NODE, LATE_SECONDS)
    if seen is None:
        yield _silent(job.id, paths)
        return
    write(paths.root, HERE_SECOND)
    found = wait_for(paths.root / REPORT, REPORT_SECONDS, there)
    if found is None and wait_for(paths.root / REPORT, LATE_SECONDS) is None:
        yield _silent(job.id, paths)
        return
    report = read_report(paths.root)
    yield ok("job", f"{job.id} ran on {report.node} after {waited:.0f} s")
    yield from _visibility(report, lease)
    yield _scontrol(paths)
    yield from (replace(check, where=report.node) for check in report.checks)


def _never_started(job: str, entry: slurm.Job, seconds: float) -> Check:
    text = f"{job} was not started within {seconds:g} s ({entry.reason}) and has been canceled"
    if entry.reason in PATIENCE:
        return warn("job", text, "nothing is known about the nodes; again with a longer --wait")
    return fail("job", text, "see `squeue --help` for this reason; change the slurm.* key")


def _silent(job: str, paths: RunPaths) -> Check:
    """The check for a job that ended or hung without a report; its log may say why."""
    names = [name for name in sorted(shared.names(paths.logs)) if name.startswith(job)]
    logs = [shared.content(paths.logs / name) for name in names if name.endswith(".out")]
    lines = [x for log in logs for x in log.decode(errors="replace").splitlines() if x.strip()]
    ends = slurm.ended([job]).get(job, "")
    text = f"{job} ended{f' as {ends}' if ends else ''} without an answer"
    if not lines:
        advice = "is output.dir on a file system that the nodes share? does slurm.setup work?"
        return fail("job", f"{text}, and its log is empty or not to be seen here", advice)
    said = " | ".join(lines[-LAST_LINES:])
    return fail("job", f"{text}: {said[:SHOWN]}", "see slurm.setup and slurm.python")


def _visibility(report: Report, lease: float) -> Iterator[Check]:
    shared = "put output.dir on a file system that all nodes share"
    if report.seen_after is None:
        yield fail("seen by the job", f"what was written here was not, for {lease:g} s", shared)
    else:
        yield ok("seen by the job", f"after {report.seen_after:.1f} s")
        if report.exclusive:
            yield ok("links between nodes", "a name that is taken here is taken on the node")
        else:
            yield fail("links between nodes", "the node could take a name that was taken", shared)
    if report.there_and_back is None:
        text = f"a file went there and back in more than {lease:g} s"
        yield fail("seen here", text, shared)
    elif report.there_and_back > lease / 4:
        text = f"a file goes there and back in {report.there_and_back:.1f} s"
        advice = f"task.lease_seconds={max(60, round(8 * report.there_and_back))}"
        yield warn("seen here", text, advice)
    else:
        yield ok("seen here", f"a file goes there and back in {report.there_and_back:.1f} s")


def _scontrol(paths: RunPaths) -> Check:
    """Whether the batch script can reach the controller, which it has to ask for a requeue."""
    advice = "tasks that are stopped cannot be requeued; recaption.retry goes on with them"
    try:
        text = shared.content(paths.root / SCONTROL).decode(errors="replace").strip()
    except OSError:
        return warn("scontrol in the job", "its answer is not to be seen here", advice)
    if "JobId=" not in text:
        last = (text.splitlines() or ["no answer"])[-1]
        return warn("scontrol in the job", last[:200], advice)
    if "Requeue=0" in text.split():
        return warn("scontrol in the job", "answers; this job may not be requeued", advice)
    return ok("scontrol in the job", "answers; the job may be requeued")
