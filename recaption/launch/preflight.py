"""Tries the engine's configuration before a run is frozen, once per configuration."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recaption.config.check import gpu_count
from recaption.config.schema import Config, Model, Prompt
from recaption.engine.base import Spec
from recaption.engine.needs import unmet
from recaption.engine.trial import ENGINE_KEYS, CannotTry, Fault, find_fault
from recaption.errors import UserError, bad_value
from recaption.launch.local_slots import gpus_of, places
from recaption.model.files import ModelFiles, model_folder
from recaption.versions import versions

# the digest has the files instead
ELSEWHERE = ("name", "path", "repo", "revision", "cache", "architectures")


def check_engines(config: Config, prompts: Sequence[Prompt], model: ModelFiles) -> None:
    """Raise UserError, naming the key, if every task would fail: too few GPUs, or vLLM refuses.

    A configuration that passed is remembered in the user's cache.
    """
    if config.engine.kind == "fake":
        return
    _check_gpus(config)
    if importlib.util.find_spec("vllm") is None:
        print(_not_tried("vLLM is not installed here"))
        return
    if reason := unmet(config.model):
        print(f"warning: {elsewhere(config.model, reason)}", file=sys.stderr)
        return
    assert model.path is not None
    passed = _cache() / _digest(config, prompts, model)
    if passed.exists():
        return
    try:
        fault = find_fault(Spec(config, tuple(prompts), str(model_folder(model.path))))
    except CannotTry as e:
        print(_not_tried(f"vLLM does not work here ({e})"))
        return
    if fault is not None:
        raise as_error(config, fault)
    try:
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
    except OSError:  # not remembered, so it is tried again next time
        return


def check_vllm(config: Config) -> None:
    """Raise UserError if tasks run here, and the vLLM here is none that the model needs."""
    here = config.slurm.kind != "cluster" and config.engine.kind != "fake"
    if here and (reason := unmet(config.model)):
        raise bad_value("model.vllm", config.model.vllm, reason)


def elsewhere(model: Model, reason: str) -> str:
    """A remark that the vLLM here is none that the model needs, where tasks run on other nodes."""
    return f"model.vllm={model.vllm}: {reason}; each task checks its node's"


def as_error(config: Config, fault: Fault) -> UserError:
    """A UserError with the key at fault and its value."""
    node: Any = asdict(config)
    for part in fault.key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    if node is None:
        return UserError(f"{fault.key or 'model'}: {fault.reason}")
    return bad_value(fault.key, node, fault.reason)


def _not_tried(why: str) -> str:
    return f"note: {why}: what engines are given was not tried; recaption.doctor does it on a node"


def _check_gpus(config: Config) -> None:
    """Raise UserError if a task has too few GPUs, as far as this is known here."""
    settings, gpus = config.engine, gpus_of_task(config)
    if not gpus:
        return
    size, replicas = settings.tensor_parallel, settings.replicas or 1
    if size > gpus:
        raise bad_value("engine.tensor_parallel", size, f"there are {gpus} GPUs for a task")
    if size * replicas > gpus:
        need = f"engines of {size} GPUs each need {size * replicas}, there are {gpus} for a task"
        raise bad_value("engine.replicas", replicas, need)


def gpus_of_task(config: Config) -> int:
    """How many GPUs a task has; 0 if this is not known here."""
    if config.slurm.kind != "cluster":
        return len(gpus_of(config)) // places(config, config.slurm.tasks or 1)
    return gpu_count(config.slurm.gpus) if config.slurm.gpus is not None else 0


def _digest(config: Config, prompts: Sequence[Prompt], model: ModelFiles) -> str:
    """A hash of everything that a trial depends on; `files` identifies the model's files."""
    template = config.model.chat_template
    content = [
        versions(),
        model.files,
        {k: v for k, v in asdict(config.model).items() if k not in ELSEWHERE},
        template and hashlib.sha256(Path(template).read_bytes()).hexdigest(),
        asdict(config.sampling),
        {key: getattr(config.engine, key) for key in ENGINE_KEYS},
        [asdict(prompt) for prompt in prompts],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "recaption", "engines")
