"""Qwen2.5-VL's vision encoder with a padded inner width, in vLLM's own processes (see encoder_width.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.models import qwen2_5_vl
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VisionMLP

from recaption.engine.encoder_width import padded_width

PADDABLE = {
    "weight",
    "bias",
}  # others are scales of a quantized checkpoint, which has its own layout


class PaddedVisionMLP(Qwen2_5_VisionMLP):  # type: ignore[misc]
    """Gate and up get rows of zeros, down gets columns of zeros, when the weights are loaded."""

    def __init__(self, in_features: int, hidden_features: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(in_features, padded_width(hidden_features), *args, **kwargs)
        layers = (self.gate_up_proj, self.down_proj)
        if any(set(dict(layer.named_parameters())) - PADDABLE for layer in layers):
            super().__init__(in_features, hidden_features, *args, **kwargs)
            return
        width = padded_width(hidden_features)
        for parameter in self.gate_up_proj.parameters():
            parameter.weight_loader = _padding(parameter.weight_loader, 0, width)
        weight = self.down_proj.weight
        weight.weight_loader = _padding(weight.weight_loader, 1, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # As in vLLM; repeated here so that its compiled code is not confused with that of the plain width.
        gate_up, _ = self.gate_up_proj(x)
        down: torch.Tensor
        down, _ = self.down_proj(self.act_fn(gate_up))
        return down


def install() -> None:
    """From now on build encoders with the padded width in this process."""
    qwen2_5_vl.Qwen2_5_VisionMLP = PaddedVisionMLP


def _padding(load: Callable[..., None], dimension: int, width: int) -> Callable[..., None]:
    """A loader that puts zeros behind a checkpoint's weights of a parameter."""

    def padded(parameter: torch.Tensor, loaded: torch.Tensor, *shard: Any) -> None:
        missing = width - loaded.shape[dimension]
        if missing:
            shape = list(loaded.shape)
            shape[dimension] = missing
            loaded = torch.cat([loaded, loaded.new_zeros(shape)], dimension)
        load(parameter, loaded, *shard)

    return padded
