"""Where a vision encoder's inner width fits no fast matrix product, and which width does.

Qwen2.5-VL's 3B and 7B have an inner width of 3,420, which is no multiple of 8. With zeros up to the
next multiple of 128 their products take a fast path, and the results are the same: the activation of
a zero is zero, and it meets a weight of zero.
"""

from __future__ import annotations

import os
from typing import Any

from recaption.engine.families import config_of

VARIABLE = "RECAPTION_PADDED_ENCODER"  # in an engine's processes; 0 in the environment: never
FITTING = 8
MULTIPLE = 128
FAMILIES = ("qwen2_5_vl",)


def padded_width(width: int) -> int:
    """The width that is computed with: the same where it fits."""
    return width if width % FITTING == 0 else -(-width // MULTIPLE) * MULTIPLE


def wanted(model_path: str | None) -> int | None:
    """The padded inner width of a model's vision encoder; None where nothing is padded."""
    if os.environ.get(VARIABLE) == "0":
        return None
    config = config_of(model_path)
    try:
        width = int(config["vision_config"]["intermediate_size"])
    except (ValueError, KeyError, TypeError):
        return None
    fits = config.get("model_type") not in FAMILIES or padded_width(width) == width
    return None if fits else padded_width(width)


def with_width(model_path: str | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """vLLM's arguments with the width among them, so that compiled code is kept apart by it."""
    width = wanted(model_path)
    if width is None:
        return arguments
    given = arguments.get("additional_config") or {}
    return {**arguments, "additional_config": {**given, "recaption_encoder_width": width}}


def set_up(model_path: str | None) -> None:
    """Have vLLM's own processes, which this one starts, pad where that is wanted."""
    if wanted(model_path):
        os.environ[VARIABLE] = "1"
