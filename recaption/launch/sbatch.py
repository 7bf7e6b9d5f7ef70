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

ENDLESS = 1_000_000  # timeouts that submitit allows; its count must not end a long run
DEFAULT_MAX_ARRAY = 1001  # Slurm's own default of MaxArraySize
UNHANDLED = 140  # srun's exit code when USR2 came before Python had a handler for it
SETUP = ['[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK']
GUARD = (  # ignores failures inside sourced files: sites' files have commands that may fail
    "trap 'code=$?; [ ${#BASH_SOURCE[@]} -gt 1 ] || { echo \"recaption: line $((LINENO - begin)) of "
    "slurm.setup failed with exit code $code, so the task is not started\"; exit 1; }' ERR; "
    "begin=$LINENO"
)
# exit codes if the kernel killed Python, most likely for memory; 253 is Slurm's
KILLED = (137, 253)
EMPTY: Mapping[str, str] = MappingProxyType({})
SCRIPT, SUBMITTED = ".sh", "_submission.sh"  # suffixes of the names that submitit gives a script
# options that put the whole batch job into a container
CONTAINED = ("container", "container-image", "container_image")


class Refused(Exception):
    """sbatch refused a job; the text is sbatch's message."""


@dataclass(frozen=True)
class Submitted:
    """Job ids (`A_I` for elements of arrays), and why Slurm took no more jobs, if it refused some."""

    jobs: list[str]
    refused: str = ""


def submit(
    paths: RunPaths, submission: Submission, config: Config, more: Mapping[str, str]
) -> Submitted:
    """Submit one task per slice, in as few arrays as MaxArraySize allows.

    `more` is added to the jobs' environment. Raises UserError when Slurm refuses the first array.
    """
    jobs: list[str] = []
    waits_for: list[str] = []  # per lane, the array submitted last
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
    """Divide tasks into arrays of at most `size`: (tasks, lane, how many run at once) for each.

    `parallelism` limits all arrays together, so it is divided among lanes. The arrays of a lane run
    one after the other; a lane has several arrays only if there are more arrays than tasks that may
    run at once.
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
    """The context in which submitit submits; raises Refused with sbatch's message.

    `more` is added to the job's environment. Afterwards Slurm has the script, and the copy that
    submitit leaves is removed, since slurm.setup may contain a token.
    """
    paths.logs.mkdir(parents=True, exist_ok=True)
    before = set(shared.names(paths.logs))
    taken = False
    try:
        with (
            environment.for_sbatch(_script(executor), more),
            contextlib.redirect_stderr(io.StringIO()),  # submitit prints sbatch's message too
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
    """submitit's parameters; None leaves one to Slurm's or the site's default.

    Raises UserError if a task would be told to stop as soon as it starts.
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
    """The script's last lines, which requeue a task that asks for it or that was killed.

    They requeue a task that is killed before it has a log at most `attempts` times; later ends are
    counted by the task itself (see task.history).
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
    """How many tasks one array may have: Slurm's MaxArraySize, and 1 if that is 0 (no arrays)."""
    value = settings().get("MaxArraySize", "")
    return max(1, int(value)) if value.isdigit() else DEFAULT_MAX_ARRAY


def warnings(slurm: Slurm) -> Iterator[str]:
    """Warnings, before submission, that tasks may not start or may not be requeued."""
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
    """A line that names the user's own variables for sbatch, if there are any."""
    names = environment.wishes(script)
    return [f"sbatch also heeds your {', '.join(names)}"] if names else []


def log_pattern(paths: RunPaths, arrays: list[str]) -> Path:
    """The pattern of the files that hold the tasks' output."""
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
