"""Running a submission's tasks as processes here, through submitit's own pickles and entry point.

submitit's LocalExecutor would end tasks after a time limit, give all of them the same GPUs, start
them all at once, and leave them running when the launcher ends. It therefore only prepares the tasks,
and this module runs them.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from submitit.local.local import LocalExecutor, LocalJob

from recaption.config.schema import Config
from recaption.engine.devices import CPUS, cpus
from recaption.launch.local_slots import gpus_of, places
from recaption.run.liveness import Process, process_of
from recaption.run.paths import RunPaths
from recaption.run.record import Submission
from recaption.task.attempt import TIED, run_task

STOP_SECONDS = 30.0


class LocalTasks:
    """The tasks of one submission: at most `slurm.parallelism` at a time, each with its GPUs."""

    def __init__(
        self,
        paths: RunPaths,
        submission: Submission,
        config: Config,
        more: Mapping[str, str],
        *,
        tied: bool,
    ) -> None:
        self.paths, self.submission, self.tied = paths, submission, tied
        self.more = more  # variables for the tasks' environment
        self.waiting = deque(range(len(submission.slices)))
        gpus = gpus_of(config)
        self.at_once = places(config, len(submission.slices))
        self.free = list(range(self.at_once))
        chosen = gpus or config.slurm.gpus == 0  # 0 hides all GPUs
        self.gpus = [gpus[i :: self.at_once] for i in range(self.at_once)] if chosen else []
        self.cpus = config.slurm.cpus or max(1, cpus() // self.at_once)
        self.running: dict[int, tuple[subprocess.Popen[bytes], int]] = {}
        self.codes: dict[int, int] = {}

    def alive(self) -> bool:
        """Start tasks that may start and collect those that have ended; False when all have ended.

        Stops all tasks if recaption.stop asks for it.
        """
        if self.paths.stop(self.submission.number).exists():
            self.stop()
        for task, (process, place) in list(self.running.items()):
            code = process.poll()
            if code is not None:
                del self.running[task]
                self.free.append(place)
                self.codes[task] = code
        while self.waiting and self.free:
            self._start(self.waiting.popleft(), self.free.pop(0))
        return bool(self.running or self.waiting)

    def stop(self) -> None:
        """Send TERM to every task, so that it flushes its journal, and kill those that do not end."""
        self.waiting.clear()
        for process, _ in self.running.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process, _ in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running.clear()

    def processes(self) -> list[Process]:
        """The processes of the tasks that are running."""
        found = (process_of(process.pid) for process, _ in self.running.values())
        return [process for process in found if process]

    def logs(self) -> Path:
        return self.paths.logs / f"{self.submission.number}-*_log.out"

    def _start(self, task: int, place: int) -> None:
        environment = {CPUS: str(self.cpus), **self.more}
        if self.tied:
            environment[TIED] = str(os.getpid())
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus[place])
        executor = _Executor(self.paths.logs, f"{self.submission.number}-{task}", environment)
        job = executor.submit(run_task, str(self.paths.root), self.submission.number, task)
        assert isinstance(job, LocalJob)
        assert job._process is not None
        self.running[task] = (job._process, place)


class _Executor(LocalExecutor):
    """Starts submitit's entry point directly, in a session of its own."""

    def __init__(self, folder: Path, job_id: str, environment: dict[str, str]) -> None:
        super().__init__(folder)
        self.job_id, self.environment = job_id, environment

    def _submit_command(self, command: str) -> LocalJob[Any]:
        environment = {
            **os.environ,
            **self.environment,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_JOB_ID": self.job_id,
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_LOCALID": "0",
            "SUBMITIT_LOCAL_GLOBALID": "0",
        }
        with open(Path(self.folder) / f"{self.job_id}_log.out", "ab") as log:
            process = subprocess.Popen(
                shlex.split(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return LocalJob(folder=self.folder, job_id=self.job_id, process=process, tasks=[0])
