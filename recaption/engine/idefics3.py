"""Idefics3 in vLLM 0.25: a picture that is not split into tiles keeps its pixels."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.idefics3 import Idefics3ProcessingInfo

_patches_of = Idefics3ProcessingInfo.get_num_patches


def _at_least_one_patch(info: Idefics3ProcessingInfo, **picture: Any) -> int:
    """vLLM 0.25 counts none for a picture that is not split, drops its pixels, and its core dies."""
    return max(1, int(_patches_of(info, **picture)))


def install() -> None:
    """Count so in this process from now on."""
    Idefics3ProcessingInfo.get_num_patches = _at_least_one_patch
