"""The environment that sbatch is called with, and the part of it that reaches a job.

Launch may itself run inside a job or an allocation. The variables that describe that job must not
act on the new one, while the user's own variables for sbatch (SBATCH_*) should.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping

OF_A_JOB = ("SLURM_", "SRUN_", "SUBMITIT_")
OF_THE_SITE = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
WISH = "SBATCH_"  # to sbatch these override the options in a script
OPTION = re.compile(r"^#SBATCH --([\w-]+)", re.MULTILINE)
NAMES = {  # variables and options that set the same thing under another name
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
# CPU binding describes the present job; `wait` is a key of ours
NEVER = re.compile(r"BIND|^SBATCH_WAIT$")
# The first line of a batch script: variables for sbatch do not reach the job, nor, if the job is no
# array, do the variables of an array that launch runs in.
FORGET = 'unset "${!SBATCH_@}"'
FORGET_ARRAY = f'{FORGET} "${{!SLURM_ARRAY_@}}"'


def wishes(script: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The user's own variables for sbatch, except those that the script sets by an option."""
    ours = {NAMES.get(option, option) for option in OPTION.findall(script)}
    found = []
    for name in environment:
        option = name.removeprefix(WISH).lower().replace("_", "-")
        if name.startswith(WISH) and not NEVER.search(name):
            found += [name] if NAMES.get(option, option) not in ours else []
    return sorted(found)


def cleaned(script: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without the variables that describe a job that launch runs in."""
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
    """Give this process the environment that sbatch should have, with `more`, within the context."""
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
