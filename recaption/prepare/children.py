"""Child processes of a task, forked from one forkserver that has done the slow imports."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from recaption.engine.base import Spec
from recaption.engine.parent_death import TASK
from recaption.errors import TaskError
from recaption.prepare import preload
from recaption.prepare.worker import READY

CONTEXT = multiprocessing.get_context("forkserver")
DEATHS_IN_A_ROW = 20
# Let Pillow and the C library keep freed memory for the next picture instead of returning it to the
# system, which takes a quarter of the preparation time. Pillow keeps up to 4 blocks of 16 MB; the other
# two values are in bytes. Variables that the environment sets already win.
MEMORY = {
    "PILLOW_BLOCKS_MAX": "4",
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
STOP_SIGNALS = {signal.SIGUSR2, signal.SIGTERM, signal.SIGINT}


def set_up(spec: Spec) -> None:
    """Set the forkserver's imports and environment, and start it. Called once per task."""
    os.environ.update(
        {
            preload.VARIABLE: spec.to_json(),
            TASK: str(os.getpid()),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **{name: os.environ.get(name, value) for name, value in MEMORY.items()},
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
    )
    CONTEXT.set_forkserver_preload(["recaption.engine.tied", "submitit", preload.__name__])
    with stop_signals_blocked():
        resource_tracker.ensure_running()
        multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Start children with the stop signals blocked, since Slurm sends them to every process of a step.

    The resource tracker unblocks some of them at its first start, so it is started here and they are
    blocked again.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(target: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """Start a child with one end of a pipe as its first argument."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(theirs, *args), daemon=True)
    with stop_signals_blocked():
        process.start()
    theirs.close()
    return process, ours


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


@dataclass
class Crashed:
    """A job whose worker died or ran out of time."""

    reason: str


@dataclass(eq=False)
class Worker:
    process: BaseProcess
    connection: Connection
    jobs: deque[tuple[Any, Any]] = field(default_factory=deque)  # (job, tag) sent, oldest first
    since: float = 0.0  # when the worker began with the oldest one
    ready: bool = False


def _send(worker: Worker, job: Any) -> None:
    with contextlib.suppress(ConnectionError):  # it is dead; receive() will find out
        worker.connection.send(job)


def _items(job: Any) -> int:
    """How many items a job has: one, or those of a chunk, which may take the time of all."""
    return len(job) if isinstance(job, list) else 1


class Pool:
    """Workers that answer jobs in order; one that dies costs its oldest job and is replaced."""

    DEPTH = 2  # jobs sent to a worker, so that it never waits for the parent

    def __init__(
        self, target: Callable[..., None], args: tuple[Any, ...], count: int, seconds: float
    ) -> None:
        self.target, self.args, self.seconds = target, args, seconds  # seconds per item
        self.workers = [self._start() for _ in range(count)]
        self.deaths_in_a_row = 0

    def connections(self) -> dict[Connection, Worker]:
        return {w.connection: w for w in self.workers}

    def vacancies(self) -> int:
        return sum(self.DEPTH - len(w.jobs) for w in self.workers)

    def at_work(self) -> Iterator[Any]:
        """The tags of all jobs whose results have not come back."""
        return (tag for worker in self.workers for _, tag in worker.jobs)

    def submit(self, job: Any, tag: Any) -> None:
        """Send a job to the least busy worker; its result comes back with `tag`."""
        worker = min(self.workers, key=lambda w: len(w.jobs))
        if not worker.jobs:
            worker.since = time.monotonic()
        worker.jobs.append((job, tag))
        _send(worker, job)

    def receive(self, worker: Worker) -> tuple[Any, Any] | None:
        """The next (tag, result or Crashed) of a worker whose pipe is readable.

        Raises TaskError when workers keep dying, whatever they are given.
        """
        try:
            result = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            return self._replace(worker, f"worker died (exit code {code})")
        if not worker.ready:
            if result != READY:
                raise TaskError(f"{socket.gethostname()}: {self.target.__module__}: {result}")
            worker.ready = True
            worker.since = time.monotonic()
            return None
        self.deaths_in_a_row = 0
        worker.since = time.monotonic()
        return worker.jobs.popleft()[1], result

    def expire(self) -> list[tuple[Any, Any]]:
        """Kill workers whose oldest job takes too long."""
        now = time.monotonic()
        results = []
        for worker in [w for w in self.workers if w.ready and w.jobs]:
            limit = self.seconds * _items(worker.jobs[0][0])
            if now - worker.since > limit:
                kill(worker.process)
                outcome = self._replace(worker, f"took longer than {limit:g} s")
                if outcome is not None:
                    results.append(outcome)
        return results

    def close(self) -> None:
        for worker in self.workers:
            worker.connection.close()
            kill(worker.process)

    def _start(self) -> Worker:
        return Worker(*start(self.target, *self.args))

    def _replace(self, worker: Worker, reason: str) -> tuple[Any, Any] | None:
        self.deaths_in_a_row += 1
        if self.deaths_in_a_row > DEATHS_IN_A_ROW:
            name = self.target.__module__
            raise TaskError(f"{socket.gethostname()}: {name}: {reason}, again and again")
        worker.connection.close()
        self.workers.remove(worker)
        fresh = self._start()
        self.workers.append(fresh)
        crashed = worker.jobs.popleft() if worker.jobs and worker.ready else None
        for job, tag in worker.jobs:
            fresh.jobs.append((job, tag))
            _send(fresh, job)
        return None if crashed is None else (crashed[1], Crashed(reason))
