"""Pads the inner width of a vision encoder for which matrix products are slow.

Qwen2.5-VL's 3B and 7B have an inner width of 3,420, which is no multiple of 8. Padded with zeros to the
next multiple of 128, their matrix products take a fast path. The results are the same, because the
activation of zero is zero and is multiplied by a weight of zero.
"""

from __future__ import annotations

import os
from typing import Any

from recaption.engine.families import config_of

VARIABLE = "RECAPTION_PADDED_ENCODER"  # set in an engine's processes; users set 0 for never
FITTING = 8
MULTIPLE = 128
FAMILIES = ("qwen2_5_vl",)


def padded_width(width: int) -> int:
    """The padded width; the same width if it needs no padding."""
    return width if width % FITTING == 0 else -(-width // MULTIPLE) * MULTIPLE


def wanted(model_path: str | None) -> int | None:
    """The padded inner width of a model's vision encoder; None if nothing is padded."""
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
    """vLLM's arguments including the width, so that vLLM's cache keeps compiled code apart."""
    width = wanted(model_path)
    if width is None:
        return arguments
    given = arguments.get("additional_config") or {}
    return {**arguments, "additional_config": {**given, "recaption_encoder_width": width}}


def set_up(model_path: str | None) -> None:
    """Make the vLLM processes that this one starts pad, if that is wanted."""
    if wanted(model_path):
        os.environ[VARIABLE] = "1"
