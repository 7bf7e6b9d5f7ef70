"""Tries what engines will be given, before anything is frozen.

A child process builds vLLM's configuration and renders a drawn picture, without a GPU. If that fails,
it tries again with the default of each key in turn, to find the key at fault.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from recaption.config.schema import Config
from recaption.config.vllm_arguments import KEYS
from recaption.engine.arguments import environment
from recaption.engine.base import Device, Spec
from recaption.engine.remote_code import own_modules
from recaption.engine.without_device import KeyFault
from recaption.errors import RecaptionError

SECONDS = 600
LONGEST = 500  # characters of a reason, at most
MODEL_KEYS = "chat_template quantization dtype load_format max_model_len trust_remote_code".split()
ENGINE_KEYS = (
    "max_num_seqs max_num_batched_tokens gpu_memory_utilization enforce_eager "
    "tensor_parallel".split()
)


class CannotTry(RecaptionError):
    """vLLM does not work on this machine, though it may on the nodes."""


@dataclass(frozen=True)
class Fault:
    """What vLLM refuses: the key at fault, and why; the key is '' if no single key is at fault."""

    key: str
    reason: str


def find_fault(spec: Spec) -> Fault | None:
    """Try what a run's engines will be given, in a child process; None if nothing is wrong.

    Raises CannotTry if vLLM does not work on this machine.
    """
    try:
        with own_modules(spec) as modules:
            child = subprocess.run(
                [sys.executable, "-m", __name__],
                input=spec.to_json(),
                env={**os.environ, **environment(Device(0)), **modules},
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise CannotTry(f"importing vLLM takes more than {SECONDS} s") from None
    lines = child.stdout.strip().splitlines()
    if child.returncode != 0 or not lines:
        said = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        raise CannotTry(said[:LONGEST])
    found = json.loads(lines[-1])
    return found and Fault(**found)


def main() -> None:
    """The child: a Spec on standard input, the fault as the last line of standard output."""
    spec = Spec.from_json(sys.stdin.read())
    from recaption.engine import vllm as adapter

    attempt = adapter.attempt if adapter.has_platform() else adapter.attempt_without_platform
    fault = named_fault(spec, attempt)
    print("\n" + json.dumps(fault and asdict(fault)), flush=True)
    os._exit(0)  # without waiting for vLLM's threads


def named_fault(spec: Spec, attempt: Callable[[Spec], None]) -> Fault | None:
    """The fault of a specification for which `attempt` raises: the key whose default mends it."""
    try:
        reason = _reason(spec, attempt)
    except KeyFault as e:
        return Fault(e.key, str(e))
    if reason is None:
        return None
    changed = ""
    for key, simpler in _simpler(spec):
        other = _reason(simpler, attempt)
        if other is None:
            return Fault(key, reason)
        if other != reason and not changed:
            changed = key
    named = [KEYS[word] for word in re.findall(r"[a-z_]+", reason) if word in KEYS and "_" in word]
    return Fault(changed or (named[0] if named else ""), reason)


def _reason(spec: Spec, attempt: Callable[[Spec], None]) -> str | None:
    try:
        attempt(spec)
    except KeyFault:
        raise
    except Exception as e:  # noqa: BLE001 - whatever vLLM, pydantic or a template raise is the answer
        return _line(str(e)) or type(e).__name__
    return None


def _line(text: str) -> str:
    """One line of a message, such as one of pydantic's, which have several."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:
        lines = [line for line in lines[1:] if not line.startswith("For further information")]
    joined = ": ".join(re.sub(r" \[type=.*", "", line) for line in lines)
    return joined.replace("Value error, ", "")[:LONGEST]


def _simpler(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """Copies of the specification, in each of which one key has its default."""
    for section, names in (
        ("model", MODEL_KEYS),
        ("engine", ENGINE_KEYS),
        ("sampling", [f.name for f in dataclasses.fields(spec.config.sampling)]),
    ):
        default = getattr(Config(), section)
        for name in names:
            value = getattr(default, name)
            if getattr(getattr(spec.config, section), name) != value:
                config = copy.deepcopy(spec.config)
                setattr(getattr(config, section), name, value)
                yield f"{section}.{name}", dataclasses.replace(spec, config=config)
    for name in ("engine", "processor", "chat_template_kwargs"):
        for leaf in getattr(spec.config.model, name):
            config = copy.deepcopy(spec.config)
            del getattr(config.model, name)[leaf]
            yield f"model.{name}.{leaf}", dataclasses.replace(spec, config=config)


if __name__ == "__main__":
    main()
