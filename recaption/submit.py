"""Submitting a run's tasks to Slurm through submitit, as one array or several."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from recaption.config.schema import Config, Slurm
from recaption.errors import UserError
from recaption.run.paths import RunPaths
from recaption.run.record import Submission
from recaption.task import REQUEUE, run_task

ENDLESS = 1_000_000  # submitit's count of timeouts must not end a long run
DEFAULT_MAX_ARRAY = 1001  # Slurm's own default of MaxArraySize
TEARDOWN = [
    "code=$?",
    f'if [ "$code" = {REQUEUE} ]; then',
    '  task="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"',
    '  scontrol requeue "$task" && sleep 60',
    "fi",
    'exit "$code"',
]
SETUP = ['[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK']


def submit(paths: RunPaths, submission: Submission, config: Config) -> list[str]:
    """Submit one task per slice; returns the job ids, `A_I` for elements of arrays."""
    executor = make_executor(paths, config)
    count = len(submission.slices)
    size = max_array_size()
    jobs = []
    try:
        for first in range(0, count, size):
            tasks = list(range(first, min(first + size, count)))
            jobs += _submit_array(executor, paths, submission.number, tasks)
    except (FailedJobError, FailedSubmissionError) as e:
        reason = [line for line in str(e).splitlines() if "error:" in line] or [str(e)]
        raise UserError(f"slurm: sbatch refused the job: {reason[0].strip()}") from None
    return jobs


def sbatch_text(paths: RunPaths, config: Config, tasks: int) -> str:
    """The batch script of an array of `tasks`, without submitting anything."""
    executor = make_executor(paths, config)
    if tasks > 1:
        executor.parameters["map_count"] = min(tasks, max_array_size())
    text: str = executor._make_submission_file_text(executor._submitit_command_str, "dry-run")
    return text


def make_executor(paths: RunPaths, config: Config) -> submitit.SlurmExecutor:
    """A submitit executor with the site's settings."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "slurm=cluster: no sbatch on this machine; use slurm=local, or a login node"
        )
    executor = submitit.SlurmExecutor(
        paths.logs, max_num_timeout=ENDLESS, python=config.slurm.python
    )
    executor.update_parameters(**parameters(config.slurm, config.data.name or "run"))
    return executor


def parameters(slurm: Slurm, name: str) -> dict[str, Any]:
    """submitit's parameters; those left at None are Slurm's or the site's own defaults."""
    additional = {k: v for k, v in slurm.additional.items() if v is not False and v is not None}
    if slurm.requeue:
        additional.setdefault("requeue", True)
    given = {
        "job_name": f"recaption-{name}",
        "nodes": 1,
        "ntasks_per_node": 1,
        "time": slurm.time,
        "gpus_per_node": slurm.gpus,
        "cpus_per_task": slurm.cpus,
        "mem": slurm.mem,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "exclude": slurm.exclude,
        "array_parallelism": slurm.parallelism,
        "srun_args": slurm.srun_args or None,
    }
    return {k: v for k, v in given.items() if v is not None or k == "time"} | {
        "signal_delay_s": slurm.signal_delay,
        "stderr_to_stdout": True,
        "wckey": None,
        "setup": SETUP + slurm.setup,
        "teardown": TEARDOWN if slurm.requeue else None,
        "additional_parameters": additional,
    }


def max_array_size() -> int:
    """How many tasks one array may have: Slurm's MaxArraySize caps the index."""
    try:
        shown = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return DEFAULT_MAX_ARRAY
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown.stdout, re.MULTILINE)
    return int(match[1]) if match else DEFAULT_MAX_ARRAY


def log_pattern(paths: RunPaths, jobs: list[str]) -> Path:
    """Where the tasks' output goes."""
    name = f"{jobs[0].split('_')[0]}*_log.out" if jobs else "*_log.out"
    return paths.logs / name


def _submit_array(
    executor: submitit.SlurmExecutor, paths: RunPaths, number: int, tasks: list[int]
) -> list[str]:
    root = str(paths.root)
    if len(tasks) == 1:
        return [executor.submit(run_task, root, number, tasks[0]).job_id]
    count = len(tasks)
    jobs = executor.map_array(run_task, [root] * count, [number] * count, tasks)
    return [job.job_id for job in jobs]
