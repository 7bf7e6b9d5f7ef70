"""The entry point of a task, which submitit runs on a node."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recaption.config.records import typed_config
from recaption.engine.base import Spec
from recaption.engine.devices import cpus, engine_devices, idle_gpus, visible_gpus, worker_count
from recaption.engine.parent_death import die_with_parent
from recaption.errors import DiskFull, RecaptionError, TaskError
from recaption.model.files import model_folder
from recaption.pipeline.loop import DRAIN, NOW, Pipeline
from recaption.pipeline.publisher import Context
from recaption.run import dataset_card, shared
from recaption.run.addresses import without_secrets
from recaption.run.chat_template import template_of
from recaption.run.liveness import this_process
from recaption.run.paths import RunPaths
from recaption.run.record import Run, read_run, read_submission
from recaption.run.tasklog import TaskLog
from recaption.shard.input_locations import of_submission
from recaption.shard.settings import settings_of
from recaption.task import metrics
from recaption.task.claims import Claims
from recaption.task.history import fruitless, read_attempts
from recaption.task.progress_line import Summary
from recaption.task.stopping import Stopping
from recaption.versions import versions

SCORES = ("watermark.", "scorers.")
REQUEUE = 75  # exit code (sysexits' EX_TEMPFAIL) on which the batch script requeues the task
EXECUTOR = "SUBMITIT_EXECUTOR"  # a task's batch script sets it to `slurm`
TIED = "RECAPTION_PARENT"  # pid of a waiting launcher; the task ends when the launcher ends


def run_task(root: str, number: int, task: int) -> None:
    """Work on one task of a submission until its shards are done or a signal asks to stop.

    Exits with REQUEUE when it wants to be started again; raises TaskError when it cannot go on.
    """
    parent = os.environ.get(TIED)
    if parent:
        import signal

        die_with_parent(int(parent), signal.SIGTERM)
    stopping = Stopping()
    faulthandler.enable()
    paths = RunPaths(Path(root))
    submission = read_submission(paths, number)
    run = of_submission(read_run(paths), submission)
    config = typed_config(submission.config)
    stopping.allow(config.slurm.signal_delay)
    attempt = attempt_id(number, task)
    log = TaskLog(paths.task_log(number, task, attempt))
    shared.remove(paths.kills(_job()))
    claims = Claims(paths, run, submission, task, attempt, log)
    why, reason = "error", ""
    try:
        _check_progress(paths, number, task, config.task.attempts, attempt)
        why = _work(claims, stopping)
    except BaseException as e:
        said = str(e) if isinstance(e, RecaptionError) else repr(e)
        why, reason = "error", without_secrets(said)
        raise
    finally:
        with contextlib.suppress(DiskFull):  # the task reports it already
            for path in paths.temporaries_by(attempt):  # of a publisher that was killed at work
                shared.remove(path)
            claims.release()
            log.write("stop", why=why, reason=reason)
    if stopping.wants_requeue() and why in (DRAIN, NOW):
        with contextlib.suppress(OSError):  # the task of a lost node may have no stdout any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(REQUEUE)
    if why == "done":
        dataset_card.complete(paths, run, attempt)
    if claims.failures:
        raise TaskError(f"{claims.failures} shards could not be made; see {paths.failures}")


def attempt_id(submission: int, task: int) -> str:
    """Unique among all attempts at all tasks, readable, and free of path separators."""
    restart = _slurm("RESTART_COUNT") or "0"
    return f"{submission}-{task}-{restart}-{uuid.uuid4().hex[:12]}"


def _job() -> str:
    """Slurm's id of this job or array element, as in the batch script; '' without Slurm."""
    array, element = (_slurm(f"ARRAY_{n}_ID") for n in ("JOB", "TASK"))
    return f"{array}_{element}" if array else _slurm("JOB_ID")


def _slurm(name: str) -> str:
    """A Slurm variable of this task's job; '' for a local task, even if launch runs in a job."""
    return os.environ.get(f"SLURM_{name}", "") if os.environ.get(EXECUTOR) == "slurm" else ""


def _work(claims: Claims, stopping: Stopping) -> str:
    """Run the pipeline; returns why it ended: `done`, `drain`, `now`, or `superseded`."""
    paths, run, submission, log = claims.paths, claims.run, claims.submission, claims.log
    task = claims.task
    config = typed_config(submission.config)
    gpus = visible_gpus()
    devices = engine_devices(config, gpus)
    workers = worker_count(config, len(devices))
    log.write("start", **_whereabouts(), engines=len(devices), workers=workers, cpus=cpus())
    if idle := idle_gpus(config, len(gpus)):
        print(f"warning: {idle}", flush=True)
    if not claims.anything_left():
        return "done"
    config.model.chat_template = template_of(paths, run.identity, config.model.chat_template)
    path = run.model["path"]
    folder = str(model_folder(path)) if path else None
    spec = Spec(config, tuple(run.prompts), folder, run.rules)
    pipeline = Pipeline(
        spec,
        make_context(paths, run, claims.attempt, spec),
        claims,
        devices=devices,
        workers=workers,
        log=paths.logs / f"{submission.number}-{task}-engine.log",
        facts=_provenance(run, task),
    )
    started = time.monotonic()
    summary = Summary(claims)
    textfile = None
    if config.task.metrics:
        name = f"{run.fingerprint[:12]}-{submission.number}-{task}"
        textfile = metrics.Textfile(config.task.metrics, str(paths.root), name)

    def heartbeat(loop: Pipeline) -> None:
        values = metrics.figures(loop, started)
        log.write("beat", **values)
        if textfile:
            textfile.write(values)

    def tick(loop: Pipeline) -> None:
        claims.heartbeat()
        summary.tick(loop)
        if log.heartbeat_is_due(first=loop.settled > 0):
            heartbeat(loop)

    said = False

    def state() -> str:
        nonlocal said
        asked = NOW if claims.superseded else stopping.state()
        if asked and not said:
            log.write("stopping", how=asked)
            said = True
        return asked

    pipeline.run(state, tick)
    heartbeat(pipeline)
    summary.show(pipeline)
    why = "superseded" if claims.superseded else pipeline.state or "done"
    if stopping.wants_requeue() and why in (DRAIN, NOW) and pipeline.running_seconds:
        _check_progress(paths, submission.number, task, config.task.attempts)
    return why


def _check_progress(
    paths: RunPaths, number: int, task: int, allowed: int, besides: str = ""
) -> None:
    """Raise TaskError if too many attempts in a row, apart from `besides`, achieved nothing."""
    vain = fruitless(read_attempts(paths.task_logs(number, task), besides))
    if len(vain) < allowed:
        return
    killed = sum(attempt.killed for attempt in vain)
    why = f"; {killed} of them were killed, as it seems for want of memory (slurm.mem)"
    raise TaskError(
        f"no shard and no sample finished in {len(vain)} attempts (task.attempts)"
        f"{why if killed else ''}; the tasks' logs in {paths.logs} say why. "
        f"`python -m recaption.retry {paths.root}` tries again"
    )


def make_context(paths: RunPaths, run: Run, attempt: str, spec: Spec) -> Context:
    config = spec.config
    return Context(
        paths,
        run.fingerprint,
        attempt,
        settings_of(run),
        config.data.max_samples,
        outage_seconds=config.data.outage_seconds,
        damaged=config.data.damaged,
        damaged_then=run.identity.get("data.damaged", config.data.damaged),
    )


def _whereabouts() -> dict[str, Any]:
    names = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT")
    slurm = {name.lower(): _slurm(name) for name in names if _slurm(name)}
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    process = this_process()
    return {"node": node, "pid": os.getpid(), "process": process and asdict(process), **slurm}


def _provenance(run: Run, task: int) -> dict[str, Any]:
    """The origin of captions, as a marker records it."""
    return {
        "model": run.model,
        "prompts": [{**asdict(p), "sha256": p.digest()} for p in run.prompts],
        "sampling": {k: v for k, v in run.identity.items() if k.startswith("sampling.")},
        "quality": {k: v for k, v in run.identity.items() if k.startswith("quality.")},
        "scores": {k: v for k, v in run.identity.items() if k.startswith(SCORES)},
        "versions": versions(),
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "task": task,
    }
