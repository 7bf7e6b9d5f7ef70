"""Fixes and settings for single families of models, chosen by their config.json."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

COMPILED = {"qwen3_vl": "vllm.model_executor.models.qwen3_vl"}  # encoders, from some version on
COMPILES = "should_torch_compile_mm_encoder"  # occurs in the code of encoders that vLLM can compile
UNSPLIT = ("idefics3", "smolvlm")


def config_of(model_path: str | None) -> dict[str, Any]:
    """A model's config.json; empty if there is none that can be read."""
    if model_path is None:
        return {}
    try:
        config = json.loads((Path(model_path) / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def with_compiled_encoder(model_path: str | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """vLLM's arguments with a compiled vision encoder, if this vLLM can and none is configured.

    0.25 cannot compile Qwen3-VL's, 0.32 can.
    """
    module = COMPILED.get(config_of(model_path).get("model_type", ""))
    given = arguments.get("compilation_config") or {}
    if module is None or not isinstance(given, dict) or not _can_compile(module):
        return arguments
    return {**arguments, "compilation_config": {"compile_mm_encoder": True, **given}}


def mend(model_path: str | None) -> None:
    """Work around faults of vLLM with this model, in the process that renders its pictures."""
    if config_of(model_path).get("model_type") in UNSPLIT:
        from recaption.engine import idefics3

        idefics3.install()


def _can_compile(module: str) -> bool:
    """Whether vLLM can compile it, judged by its source, since it may not be importable here."""
    found = importlib.util.find_spec(module)
    return found is not None and bool(found.origin) and COMPILES in _text(str(found.origin))


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
