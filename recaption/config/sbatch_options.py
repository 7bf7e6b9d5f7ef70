"""Options of sbatch that slurm.additional may not set: recaption or another key sets them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from recaption.config.schema import Slurm

LOGS = "the tasks' logs are in RUN/.recaption/logs"
ANSWER = "recaption reads sbatch's answer"
ONE_EACH = "a task is one process on each of its nodes"
OURS = {  # option → where it is set instead
    "array": "see slurm.tasks and slurm.parallelism",
    "requeue": "see slurm.requeue",
    "no-requeue": "see slurm.requeue",
    "time": "see slurm.time",
    "signal": "see slurm.signal_delay",
    "partition": "see slurm.partition",
    "account": "see slurm.account",
    "qos": "see slurm.qos",
    "constraint": "see slurm.constraint",
    "exclude": "see slurm.exclude",
    "mem": "see slurm.mem",
    "cpus-per-task": "see slurm.cpus",
    "wait": "see wait=true",
    "test-only": "see dry_run=true",
    "nodes": ONE_EACH,
    "ntasks": ONE_EACH,
    "ntasks-per-node": ONE_EACH,
    "output": LOGS,
    "error": LOGS,
    "open-mode": LOGS,
    "parsable": ANSWER,
    "quiet": ANSWER,
    "wrap": "recaption writes the batch script",
}
BESIDE = {  # option → the key under slurm. that has to be null if it is set
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gpus-per-task": "gpus",
    "gpus-per-socket": "gpus",
    "gres": "gpus",
    "mem-per-cpu": "mem",
    "mem-per-gpu": "mem",
    "cpus-per-gpu": "cpus",
}


def taken_options(slurm: Slurm) -> list[str]:
    """One message for each option under slurm.additional that cannot be set there."""
    if slurm.kind != "cluster":
        return []
    return [message for item in slurm.additional.items() if (message := _taken(slurm, *item))]


def _taken(slurm: Slurm, name: str, value: Any) -> str:
    if value is None:
        return ""
    key, option = f"slurm.additional.{name}", name.replace("_", "-")
    ours = _named(option, OURS)
    if ours:
        return f"{key}: cannot be set there: {OURS[ours]}"
    beside = _named(option, BESIDE)
    if not beside or value is False or (beside == "gres" and not re.search(r"\bgpu\b", str(value))):
        return ""
    other = BESIDE[beside]
    given = getattr(slurm, other)
    if given is None:
        return ""
    hint = ", or slurm.gpus=TYPE:N alone" if other == "gpus" else ""
    return f"{key}: stands beside slurm.{other}={given}: give slurm.{other}=null with it{hint}"


def _named(option: str, table: Mapping[str, Any]) -> str | None:
    """The option in a table that sbatch understands by this one, which may be abbreviated."""
    if option in {*OURS, *BESIDE}:
        return option if option in table else None
    return next((name for name in table if name.startswith(option)), None)
