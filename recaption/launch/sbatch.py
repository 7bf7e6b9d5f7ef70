"""Submitting a run's tasks to Slurm through submitit, as one array or several."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from recaption.cli.slurm import settings
from recaption.config.schema import Config, Slurm
from recaption.engine.sockets import too_long
from recaption.errors import UserError, bad_value
from recaption.launch import environment
from recaption.run import shared
from recaption.run.paths import KILLS, RunPaths
from recaption.run.record import Submission
from recaption.task.attempt import REQUEUE, run_task

ENDLESS = 1_000_000  # submitit's count of timeouts must not end a long run
DEFAULT_MAX_ARRAY = 1001  # Slurm's own default of MaxArraySize
UNHANDLED = 140  # srun's exit code when USR2 came before Python had a handler for it
SETUP = ['[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK']
GUARD = (  # not within files that a line sources: those of sites have commands that fail unharmed
    "trap 'code=$?; [ ${#BASH_SOURCE[@]} -gt 1 ] || { echo \"recaption: line $((LINENO - begin)) of "
    "slurm.setup failed with exit code $code, so the task is not started\"; exit 1; }' ERR; "
    "begin=$LINENO"
)
KILLED = (137, 253)  # the kernel killed Python, most likely for memory; 253: as Slurm says it
EMPTY: Mapping[str, str] = MappingProxyType({})
SCRIPT, SUBMITTED = ".sh", "_submission.sh"  # ends of the names that submitit gives a script
CONTAINED = ("container", "container-image", "container_image")  # options of the whole batch job


class Refused(Exception):
    """sbatch did not take a job; the text is what it says."""


@dataclass(frozen=True)
class Submitted:
    """Job ids, `A_I` for elements of arrays; and why Slurm took no more, if it did not."""

    jobs: list[str]
    refused: str = ""


def submit(
    paths: RunPaths, submission: Submission, config: Config, more: Mapping[str, str]
) -> Submitted:
    """Submit one task per slice, as few arrays as MaxArraySize allows, with `more` environment.

    Raises UserError when Slurm refuses the first one.
    """
    jobs: list[str] = []
    waits_for: list[str] = []  # per lane, the array that comes before
    arrays = arrays_of(len(submission.slices), max_array_size(), config.slurm.parallelism)
    for tasks, lane, at_once in arrays:
        executor = make_executor(paths, config, array=len(tasks) > 1)
        executor.update_parameters(array_parallelism=at_once)
        if lane < len(waits_for):
            others = executor.parameters.get("dependency")
            after = f"afterany:{waits_for[lane]}" + (f",{others}" if others else "")
            executor.update_parameters(dependency=after)
        try:
            with calling_sbatch(executor, paths, more):
                jobs += _submit_array(executor, paths, submission.number, tasks)
        except Refused as e:
            if not jobs:
                raise UserError(f"slurm: sbatch refused the job: {e}") from None
            return Submitted(jobs, str(e))
        waits_for[lane : lane + 1] = [jobs[-1].split("_")[0]]
    return Submitted(jobs)


def arrays_of(count: int, size: int, parallelism: int | None) -> list[tuple[list[int], int, int]]:
    """Arrays of at most `size` tasks: each with its tasks, its lane, and how many run at once.

    `parallelism` holds for all arrays together, so it is shared out among lanes: the arrays of a
    lane run one after the other, and there are several in a lane only where tasks at a time are
    fewer than arrays.
    """
    groups = [list(range(i, min(i + size, count))) for i in range(0, count, size)]
    allowed = parallelism or count
    lanes = min(len(groups), allowed)
    shares = [allowed // lanes + (lane < allowed % lanes) for lane in range(lanes)]
    return [(tasks, i % lanes, shares[i % lanes]) for i, tasks in enumerate(groups)]


def sbatch_text(paths: RunPaths, config: Config, tasks: int) -> str:
    """The batch script of the first array of `tasks`, without submitting anything."""
    first, _, at_once = arrays_of(tasks, max_array_size(), config.slurm.parallelism)[0]
    executor = make_executor(paths, config, array=len(first) > 1)
    executor.update_parameters(array_parallelism=at_once)
    if len(first) > 1:
        executor.parameters["map_count"] = len(first)
    return _script(executor)


def _script(executor: submitit.SlurmExecutor) -> str:
    text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return text


@contextlib.contextmanager
def calling_sbatch(
    executor: submitit.SlurmExecutor, paths: RunPaths, more: Mapping[str, str] = EMPTY
) -> Iterator[None]:
    """Around a submission by submitit; raises Refused with what sbatch says.

    `more` is what the job's environment is to have besides.

    The script is Slurm's now: submitit's copy, which may hold a token in slurm.setup, goes.
    """
    paths.logs.mkdir(parents=True, exist_ok=True)
    before = set(shared.names(paths.logs))
    taken = False
    try:
        with (
            environment.for_sbatch(_script(executor), more),
            contextlib.redirect_stderr(io.StringIO()),  # submitit repeats what sbatch says
        ):
            yield
        taken = True
    except (FailedJobError, FailedSubmissionError) as e:
        lines = [line for line in str(e).splitlines() if "error:" in line]
        raise Refused((lines or [str(e)])[0].strip()) from None
    finally:
        for name in set(shared.names(paths.logs)) - before:
            if name.endswith(SUBMITTED if taken else SCRIPT):
                shared.remove(paths.logs / name)


def make_executor(paths: RunPaths, config: Config, *, array: bool) -> submitit.SlurmExecutor:
    """A submitit executor with the site's settings, for an array or for one task."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "slurm=cluster: no sbatch on this machine; use slurm=local, or a login node"
        )
    executor = submitit.SlurmExecutor(
        paths.logs, max_num_timeout=ENDLESS, python=config.slurm.python
    )
    executor.update_parameters(**parameters(config.slurm, config.data.name or "run"))
    forget = environment.FORGET if array else environment.FORGET_ARRAY
    executor.update_parameters(setup=[forget, *executor.parameters["setup"]])
    if config.slurm.requeue:
        executor.update_parameters(teardown=_teardown(paths, config.task.attempts))
    return executor


def parameters(slurm: Slurm, name: str) -> dict[str, Any]:
    """submitit's parameters; those left at None are Slurm's or the site's own defaults.

    Raises UserError where a task would be told to stop as soon as it starts.
    """
    if slurm.time is not None and slurm.time * 60 <= slurm.signal_delay:
        shorter = f"must be shorter than slurm.time={slurm.time} ({slurm.time * 60} s)"
        raise bad_value("slurm.signal_delay", slurm.signal_delay, shorter)
    additional = {k: v for k, v in slurm.additional.items() if v is not False and v is not None}
    additional.setdefault("requeue" if slurm.requeue else "no-requeue", True)
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
        "srun_args": slurm.srun_args or None,
        "dependency": additional.pop("dependency", None),
    }
    return {k: v for k, v in given.items() if v is not None or k == "time"} | {
        "signal_delay_s": slurm.signal_delay,
        "stderr_to_stdout": True,
        "wckey": None,
        "setup": [*SETUP, GUARD, *slurm.setup, "trap - ERR"] if slurm.setup else SETUP,
        "additional_parameters": additional,
    }


def _teardown(paths: RunPaths, attempts: int) -> list[str]:
    """The script's last lines, which requeue a task that asks for it, or that was killed.

    A task that is killed before it has a log of its own is requeued so many times; the others count
    themselves (see task.attempts).
    """
    return [
        "code=$? again=",
        'task="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"',
        f"kills={shlex.quote(str(paths.logs))}/${{task}}{KILLS}",
        'case "$code" in',
        f"{REQUEUE} | {UNHANDLED}) again=1 ;;",
        f"{' | '.join(map(str, KILLED))})",
        '  echo "$code" >>"$kills"',
        f'  [ "$(wc -l <"$kills")" -ge {attempts} ] || again=1',
        '  [ "$again" ] || echo "recaption: this task was killed again and again before it began,'
        ' as it seems for want of memory: recaption.retry with a larger slurm.mem goes on with it" ;;',
        "esac",
        'if [ "$again" ]; then',
        '  scontrol requeue "$task" && sleep 60',
        '  echo "recaption: this task could not be requeued; recaption.retry goes on with it"',
        "fi",
        'exit "$code"',
    ]


def max_array_size() -> int:
    """How many tasks one array may have: Slurm's MaxArraySize caps the index; 0: it has no arrays."""
    value = settings().get("MaxArraySize", "")
    return max(1, int(value)) if value.isdigit() else DEFAULT_MAX_ARRAY


def warnings(slurm: Slurm) -> Iterator[str]:
    """Why tasks might not start, or not come back, as far as it shows before they start."""
    if sockets := too_long():
        yield f"{sockets} in slurm.setup, unless the nodes have another"
    contained = [key for key in CONTAINED if slurm.additional.get(key)]
    if not slurm.requeue:
        yield "slurm.requeue=false: a task that is stopped does not come back; retry goes on"
    elif contained:
        yield (
            f"slurm.additional.{contained[0]} puts the whole batch job into a container: unless "
            "scontrol is in it, a task that is stopped cannot be requeued. Give srun the container "
            "(slurm.srun_args, see slurm/examples)"
        )
    elif shutil.which("scontrol") is None:
        yield (
            "no scontrol here: unless the nodes have it, a task that is stopped cannot be requeued, "
            "and status will say `needs retry`"
        )


def heeded(script: str) -> list[str]:
    """A line about the user's own variables that sbatch heeds, where there are such."""
    names = environment.wishes(script)
    return [f"sbatch also heeds your {', '.join(names)}"] if names else []


def log_pattern(paths: RunPaths, arrays: list[str]) -> Path:
    """Where the tasks' output goes."""
    names = arrays[0] if len(arrays) == 1 else f"{{{','.join(arrays)}}}"
    return paths.output_log(f"{names}_*")


def _submit_array(
    executor: submitit.SlurmExecutor, paths: RunPaths, number: int, tasks: list[int]
) -> list[str]:
    root = str(paths.root)
    if len(tasks) == 1:
        return [executor.submit(run_task, root, number, tasks[0]).job_id]
    count = len(tasks)
    jobs = executor.map_array(run_task, [root] * count, [number] * count, tasks)
    return [job.job_id for job in jobs]
