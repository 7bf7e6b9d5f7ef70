"""Weights in bf16 for the work, in fp32 for the steps: Muon for matrices, AdamW for the rest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .model import Size

FLOOR = 0.02  # components weaker than this are left weak


def initialize(model: Any, size: Size, pixels: Tensor) -> None:
    """Weights scaled to their inputs; patches know from the start where they are, and are seen
    through the whitened principal components of the patches of some pictures (bytes)."""
    depth = {"vision": 2 * size.vision_layers, "text": 2 * size.layers}
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        part = "vision" if "vision_model" in name else "text"
        last = name.endswith(("out_proj.weight", "o_proj.weight", "fc2.weight", "down_proj.weight"))
        spread = weight[0].numel() ** -0.5 / (math.sqrt(depth[part]) if last else 1)
        nn.init.normal_(weight, std=0.05 if "embed_tokens" in name else spread)
    embedding = model.model.vision_model.embeddings.patch_embedding
    _look_through_components(embedding, pixels)
    places = model.model.vision_model.embeddings.position_embedding.weight
    side, quarter = size.image // size.patch, size.vision_width // 4
    line = (torch.arange(side) + 0.5) / side
    waves = line[:, None] * math.pi * torch.linspace(0.5, side, quarter)
    both = torch.cat([waves.sin(), waves.cos()], 1)
    across, down = both.repeat(side, 1), both.repeat_interleave(side, 0)
    with torch.no_grad():
        places.copy_(0.4 * torch.cat([across, down], 1))


class Stepper:
    """Keeps the fp32 weights and their optimizers; the model itself holds bf16 copies."""

    def __init__(self, model: Any, heads: nn.Module, rate: float) -> None:
        named = [*model.named_parameters(), *heads.named_parameters()]
        self.work = [weight for _, weight in named]
        self.names = [name for name, _ in named]
        self.masters = [weight.detach().float().clone() for weight in self.work]
        for master, weight in zip(self.masters, self.work, strict=True):
            master.grad = torch.zeros_like(master)
            weight.data = weight.data.to(torch.bfloat16)
        matrices = [
            m
            for n, m in zip(self.names, self.masters, strict=True)
            if m.ndim == 2 and ".layers." in n
        ]
        chosen = {id(m) for m in matrices}
        rest = [m for m in self.masters if id(m) not in chosen]
        fused = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        muon = torch.optim.Muon(
            matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        )
        self.optimizers: list[torch.optim.Optimizer] = [fused, muon]

    def step(self, rate: float, clip: float = 2.0) -> None:
        """One step from the gradients in the bf16 weights, which are then replaced."""
        grads: list[Tensor] = []
        for master, weight in zip(self.masters, self.work, strict=True):
            if weight.grad is None:
                master.grad = None
                continue
            master.grad = weight.grad.float()
            grads.append(master.grad)
            weight.grad = None
        norm = torch.nn.utils.get_total_norm(grads)
        torch._foreach_mul_(grads, torch.clamp(clip / (norm + 1e-6), max=1.0))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.work, self.masters)

    def load(self, masters: list[Tensor]) -> None:
        """Takes over fp32 weights."""
        with torch.no_grad():
            torch._foreach_copy_(self.masters, masters)
            torch._foreach_copy_(self.work, self.masters)


def _look_through_components(embedding: nn.Conv2d, pixels: Tensor) -> None:
    side, width = embedding.kernel_size[0], embedding.out_channels
    values = pixels.float() / 127.5 - 1
    patches = values.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5)
    rows = patches.flatten(3).flatten(0, 2)
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    spread = values[-width:].clamp(min=0).sqrt()
    weight = 0.5 * (vectors[:, -width:] / (spread + FLOOR)).T
    with torch.no_grad():
        embedding.weight.copy_(weight.reshape(embedding.weight.shape))
        embedding.bias.copy_(-weight @ mean)
