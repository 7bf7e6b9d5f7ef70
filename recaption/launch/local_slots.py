"""How many tasks run at the same time on this machine, and on which GPUs."""

from __future__ import annotations

from recaption.config.check import gpu_count
from recaption.config.schema import Config
from recaption.engine.devices import cpus, visible_gpus


def gpus_of(config: Config) -> list[str]:
    """The GPUs of this machine that slurm.gpus allows."""
    allowed = config.slurm.gpus
    return visible_gpus()[: None if allowed is None else gpu_count(allowed)]


def places(config: Config, tasks: int) -> int:
    """How many of `tasks` tasks run at the same time here."""
    allowed = config.slurm.parallelism or default_parallelism(config)
    gpus = len(gpus_of(config))
    return max(1, min(allowed, tasks, gpus or allowed))


def default_parallelism(config: Config) -> int:
    """One task at a time per GPU (or group of them), or per two CPUs if there is no GPU."""
    gpus = len(gpus_of(config)) // config.engine.tensor_parallel
    return gpus or max(1, cpus() // 2)
