"""Helpers of the training, not of the model: what each patch and each image token should know.

A patch should know the shape on it; the image tokens, in order, the first, second and third
shape from the left, and the background. The language model then only has to read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .model import Size
from .sketch import MOST, Plan
from .truth import Truth

PARTS = {"there": 2, "shape": 4, "color": 8, "size": 2, "row": 3, "column": 3, "rank": 3}
WEIGHTS = {"shape": 3.0, "row": 2.0, "column": 2.0}
WIDTH = sum(PARTS.values()) + 2


def build_heads(size: Size) -> nn.ModuleDict:
    """Linear readers of the patches and of the image tokens."""
    return nn.ModuleDict(
        {
            "patch": nn.Linear(size.vision_width, WIDTH + 8),
            "token": nn.Linear(size.width, WIDTH),
            "ground": nn.Linear(size.width, 8 + MOST),
        }
    )


def patch_labels(plan: Plan, side: int) -> Tensor:
    """Which shape lies on each patch, (scenes, patches); MOST where none does."""
    line = (torch.arange(side) + 0.5) / side
    cx, cy = line.repeat(side), line.repeat_interleave(side)
    truth = plan.truth
    dx, dy = cx - truth.x[..., None], cy - truth.y[..., None]
    near = 0.8 * plan.reach[..., None, None] / plan.size[:, None, :, None]
    inside = (dx / near[:, :, 0]).square() + (dy / near[:, :, 1]).square() < 1
    inside |= torch.maximum(dx.abs(), dy.abs()) <= 0.5 / side
    inside &= (truth.shape >= 0)[..., None]
    far = torch.where(inside, dx.square() + dy.square(), 9.0)
    return torch.where(inside.any(1), far.argmin(1), MOST)


def _read(out: Tensor, truth: Truth, index: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of WIDTH outputs that describe the index-th shapes (MOST: none), and which of
    the described shapes have shape, colour, size and place right."""
    there = index < MOST
    at = index.clamp(max=MOST - 1)
    shape = truth.shape.gather(1, at)
    there = there & (shape >= 0)
    wanted = {
        "there": there.long(),
        "shape": shape,
        "color": truth.color.gather(1, at),
        "size": truth.size.gather(1, at),
        "row": truth.row.gather(1, at),
        "column": truth.column.gather(1, at),
        "rank": at,
    }
    loss, right, start = torch.zeros(()), torch.ones_like(there), 0
    share = there.float().mean() + 1e-3
    for name, width in PARTS.items():
        logits = out[..., start : start + width]
        goal = wanted[name] if name == "there" else torch.where(there, wanted[name], -1)
        total = functional.cross_entropy(
            logits.flatten(0, 1), goal.flatten(), ignore_index=-1, reduction="sum"
        )
        mean = total / goal.numel() / (1 if name == "there" else share)
        loss = loss + WEIGHTS.get(name, 1.0) * mean
        if name != "rank":
            right &= (logits.argmax(-1) == goal) | (goal < 0)
        start += width
    place = torch.stack([truth.x.gather(1, at), truth.y.gather(1, at)], -1)
    away = (out[..., start : start + 2] - (2 * place - 1)).abs().sum(-1)
    return loss + 3 * (away * there).mean() / share, right


def patch_loss(heads: nn.ModuleDict, hidden: Tensor, truth: Truth, labels: Tensor) -> Tensor:
    """How badly the patches (scenes, patches, width) know what lies on them."""
    out = heads["patch"](hidden).float()
    loss, _ = _read(out[..., :WIDTH], truth, labels)
    ground = truth.ground[:, None].expand(-1, out.shape[1])
    return loss + functional.cross_entropy(out[..., WIDTH:].flatten(0, 1), ground.flatten())


def token_loss(heads: nn.ModuleDict, seen: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """How badly the image tokens know the scene, and the share of scenes known fully."""
    slots = torch.arange(MOST)[None].expand(len(seen), -1)
    out = heads["token"](seen[:, :MOST]).float()
    loss, right = _read(out, truth, slots)
    last = heads["ground"](seen[:, -1]).float()
    loss = loss + functional.cross_entropy(last[:, :8], truth.ground)
    loss = loss + functional.cross_entropy(last[:, 8:], truth.count - 1)
    right = right.all(1) & (last[:, :8].argmax(-1) == truth.ground)
    return loss, right.float().mean()
