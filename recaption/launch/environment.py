"""What sbatch is called with, and what of it reaches a job.

A launch may itself stand in a job, an allocation or a shell with a profile for sbatch: a job's own
variables describe that job, and are no wishes for another one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping

OF_A_JOB = ("SLURM_", "SRUN_", "SUBMITIT_")
OF_THE_SITE = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
WISH = "SBATCH_"  # sbatch takes these over the options of a script
OPTION = re.compile(r"^#SBATCH --([\w-]+)", re.MULTILINE)
NAMES = {  # variables that are not called as their option
    "array-inx": "array",
    "timelimit": "time",
    "mem-per-node": "mem",
    "no-requeue": "requeue",
    "error": "output",
    "gpus": "gpus-per-node",
    "gpus-per-task": "gpus-per-node",
    "gres": "gpus-per-node",
    "mem-per-cpu": "mem",
    "mem-per-gpu": "mem",
    "cpus-per-gpu": "cpus-per-task",
}
NEVER = re.compile(r"BIND|^SBATCH_WAIT$")  # how CPUs are bound is a job's own; `wait` is a key
# The first line of a batch script: nothing meant for sbatch reaches the job, nor, where that is no
# array, the name of another one.
FORGET = 'unset "${!SBATCH_@}"'
FORGET_ARRAY = f'{FORGET} "${{!SLURM_ARRAY_@}}"'


def wishes(script: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The user's own variables for sbatch, but those that an option of the script stands for."""
    ours = {NAMES.get(option, option) for option in OPTION.findall(script)}
    found = []
    for name in environment:
        option = name.removeprefix(WISH).lower().replace("_", "-")
        if name.startswith(WISH) and not NEVER.search(name):
            found += [name] if NAMES.get(option, option) not in ours else []
    return sorted(found)


def cleaned(script: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without what describes a job that this is part of."""
    kept = {*OF_THE_SITE, *wishes(script, environment)}
    return {
        name: value
        for name, value in environment.items()
        if name in kept or not name.startswith((*OF_A_JOB, WISH))
    }


def exports(script: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a job gets the environment that sbatch is called with."""
    given = re.findall(r"^#SBATCH --export=(\S+)", script, re.MULTILINE)
    if not given and "SBATCH_EXPORT" in environment:
        given = [environment["SBATCH_EXPORT"]]
    return not given or "ALL" in given[-1].strip("'\"").split(",")


@contextlib.contextmanager
def for_sbatch(script: str, more: Mapping[str, str]) -> Iterator[None]:
    """Within it, this process has the environment that sbatch is to be called with, and `more`."""
    before = dict(os.environ)
    clean = cleaned(script, before)
    for name in before.keys() - clean.keys():
        del os.environ[name]
    os.environ.update(more)
    try:
        yield
    finally:
        for name in more:
            os.environ.pop(name, None)
        os.environ.update(before)
