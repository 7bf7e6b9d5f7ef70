"""Divides a task's GPUs and CPUs among its engines and workers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from recaption.config.schema import Config
from recaption.engine.base import Device
from recaption.errors import bad_value

CPUS = "RECAPTION_CPUS"  # set by the local launcher, which divides one machine among tasks


def cpus() -> int:
    """How many CPUs this task may use."""
    given = len(os.sched_getaffinity(0))
    return min(given, int(os.environ.get(CPUS) or given))


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use: CUDA_VISIBLE_DEVICES, else all of the machine.

    Empty on a machine without an NVIDIA GPU, whatever the variable says.
    """
    present = _present_gpus()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not present or named is None:
        return [str(i) for i in range(present)]
    return [part for part in named.split(",") if part.strip()]


def engine_devices(config: Config, gpus: list[str]) -> list[Device]:
    """One device per engine, of visible GPUs; raises UserError if there are too few for one engine."""
    settings = config.engine
    size = settings.tensor_parallel
    if settings.kind == "fake" or not gpus:
        return [Device(i) for i in range(settings.replicas or 1)]
    groups = [gpus[i : i + size] for i in range(0, len(gpus) - size + 1, size)]
    if not groups:
        raise bad_value("engine.tensor_parallel", size, f"there are {len(gpus)} GPUs for this task")
    if len(groups) < (settings.replicas or 1):
        wanted = f"engines of {size} GPUs each, there are {len(gpus)} GPUs for this task"
        raise bad_value("engine.replicas", settings.replicas, wanted)
    groups = groups[: settings.replicas]
    return [Device(i, {"CUDA_VISIBLE_DEVICES": ",".join(group)}) for i, group in enumerate(groups)]


def idle_gpus(config: Config, gpus: int) -> str:
    """A warning if no engine uses some of a task's GPUs; '' if all are used."""
    settings = config.engine
    size, engines = settings.tensor_parallel, gpus // settings.tensor_parallel
    left = gpus - size * min(engines, settings.replicas or engines)
    if settings.kind == "fake" or left <= 0:
        return ""
    key = f"engine.tensor_parallel={size}"
    if settings.replicas and settings.replicas < engines:
        key = f"engine.replicas={settings.replicas}"
    return f"{key}: no engine takes {left} of the {gpus} GPUs of a task"


def worker_count(config: Config, engines: int) -> int:
    """data.workers, else the CPUs that the loop and the engines' front-ends leave over; one for
    each of the first two CPUs in any case, since neither loop nor front-ends fill theirs."""
    return config.data.workers or max(min(2, cpus()), cpus() - engines - 1)


def _present_gpus() -> int:
    try:
        return len(list(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        pass
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return listed.stdout.count(b"GPU ") if listed.returncode == 0 else 0
