"""The keys of how the work is done: engine, slurm and task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recaption.config.key import key


@dataclass(kw_only=True)
class Engine:
    """The engines of a task; everything but the kind may change between submissions."""

    kind: str = key("vllm", "Set by engine=vllm or engine=fake.", choices=("vllm", "fake"))
    tensor_parallel: int = key(1, "GPUs over which each engine splits the model.", low=1, high=8)
    replicas: int | None = key(
        None,
        "Engines per task. Default: as many as the task's GPUs allow, and 1 without GPUs.",
        low=1,
        high=64,
    )
    max_num_seqs: int = key(
        512, "Captions that an engine generates at the same time, at most.", low=1
    )
    max_num_batched_tokens: int | None = key(
        16384,
        "Tokens that an engine processes in one step, at most; null leaves it to vLLM.",
        low=64,
    )
    gpu_memory_utilization: float = key(
        0.9, "Share of a GPU's memory that an engine takes, from 0.05 to 1.", low=0.05, high=1.0
    )
    enforce_eager: bool = key(
        False, "Do without CUDA graphs: the engine starts sooner and generates more slowly."
    )
    cache: str | None = key(
        None,
        "Folder that nodes share and only you may write to, where compiled code is kept for engines "
        "on fresh nodes. "
        "Default: recaption/compiled in the user's cache folder.",
        path=True,
        was=None,
    )
    waiting: int = key(
        32,
        "Prepared samples that an engine holds beyond max_num_seqs, so that it never runs out "
        "of work.",
        low=0,
    )
    start_seconds: float = key(
        1800.0, "Seconds that an engine may take to start before it counts as dead.", low=1.0
    )
    stall_seconds: float = key(
        300.0, "Seconds without progress after which a busy engine counts as dead.", low=0.1
    )
    restarts: int = key(
        3,
        "How many times an engine is restarted in a row, without a caption in between, before "
        "it is given up.",
        low=0,
        high=1000,
    )
    rate: float = key(0.0, "Images per second; 0 means no limit.", low=0.0, fake=True)
    record: str | None = key(
        None,
        "File to which a line is added for every caption made. Default: none.",
        path=True,
        fake=True,
    )
    salt: str = key(
        "",
        "random gives every caption another text, even for the same picture. Default: none.",
        choices=("", "random"),
        fake=True,
    )
    input_mb: float = key(
        0.0,
        "Million bytes that every prepared picture is filled up to, as a model's input has.",
        low=0.0,
        was=0.0,
        fake=True,
    )
    poison: dict[str, str] = key(
        {},
        "What a caption, or * for every other, brings about: crash, hang, error, refuse, cut, "
        "wait SECONDS, or say TEXT.",
        fake=True,
    )


@dataclass(kw_only=True)
class Slurm:
    """Where tasks run."""

    kind: str = key("local", "Set by slurm=local or slurm=cluster.", choices=("local", "cluster"))
    tasks: int | None = key(
        None,
        "Tasks that share the shards: elements of the array, or processes here. Default: 1 "
        "here, with Slurm one per shard and at most 64.",
        low=1,
    )
    gpus: Any = key(
        None,
        "GPUs per task, as a number or TYPE:N, such as a100:4. Locally: GPUs that all tasks "
        "share; default: all of the machine.",
        text=True,
    )
    cpus: int | None = key(None, "CPUs per task. Default: Slurm's.", low=1)
    mem: str | None = key(None, "Memory per task, such as 128G. Default: Slurm's.", text=True)
    time: Any = key(
        None,
        "Time limit of a task: a number of minutes, or HH:MM:SS, D-HH or D-HH:MM[:SS]. Default:"
        " the partition's.",
        text=True,
    )
    partition: str | None = key(
        None, "Partition that the job is submitted to (sbatch --partition).", text=True
    )
    account: str | None = key(
        None, "Account that the job is charged to (sbatch --account).", text=True
    )
    qos: str | None = key(None, "Quality of service of the job (sbatch --qos).", text=True)
    constraint: str | None = key(
        None, "Features that a node has to have (sbatch --constraint).", text=True
    )
    exclude: str | None = key(
        None, "Nodes that the job stays away from (sbatch --exclude).", text=True
    )
    parallelism: int | None = key(
        None,
        "Tasks that run at the same time, at most. Default: no limit; locally, what GPUs and "
        "CPUs allow.",
        low=1,
    )
    requeue: bool = key(
        True,
        "Tasks are requeued after preemption and at the time limit, and go on where they stopped.",
    )
    signal_delay: int = key(
        90,
        "Seconds before the time limit at which Slurm sends USR2, so that a task can stop in "
        "order.",
        low=1,
    )
    setup: list[str] = key(
        [],
        "Shell lines that run on the node before a task, such as 'module load cuda'; if one "
        "fails, the task does not start.",
    )
    python: str | None = key(
        None,
        "Command that starts Python on a node. Default: the interpreter that launch runs in.",
        text=True,
    )
    srun_args: list[str] = key([], "Further arguments of the srun command that starts a task.")
    additional: dict[str, Any] = key(
        {},
        "Further options of sbatch by name, such as slurm.additional.reservation=NAME.",
        text=True,
    )


@dataclass(kw_only=True)
class Task:
    """How each task works, in Slurm's array and on this machine."""

    steal: bool = key(
        True,
        "A task that has finished its own shards takes over shards that no other task is "
        "working on.",
    )
    attempts: int = key(
        5,
        "A task is given up after this many starts in a row that finished no shard and no sample.",
        low=1,
    )
    metrics: str | None = key(
        None,
        "Folder in which each task keeps a text file of metrics for Prometheus' node exporter. "
        "Default: none.",
        path=True,
    )
    flush_seconds: float = key(
        3.0,
        "Seconds between writes of new captions to disk, which is what a killed task can lose.",
        low=0.05,
    )
    lease_seconds: float = key(
        60.0,
        "Seconds without a sign of life after which a task's shards may be taken over by others.",
        low=0.5,
    )
