"""Draws many scenes at once, at the model's own resolution: quick, and nearly like real ones."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .scenes import COLORS, MAX_ASPECT, MAX_TURN, MIN_GAP, RADII, SIDES
from .truth import Truth

MOST = 3
TRIES = 24
FOLDS = torch.tensor([1.0, 4.0, 3.0, 5.0])  # equal parts around the centre, by shape
PALETTE = torch.tensor([list(rgb) for rgb in COLORS.values()], dtype=torch.float32)


class Plan(NamedTuple):
    """Scenes to be painted; lengths are in source pixels, (scenes, 3) for each shape."""

    truth: Truth
    size: Tensor
    reach: Tensor
    turn: Tensor
    fold: Tensor
    normal: Tensor
    away: Tensor
    rgb: Tensor
    ground: Tensor


def _uniform(low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape) * (high - low) + low


def _sizes(count: int) -> Tensor:
    """Width and height of the source pictures."""
    few = torch.rand(count) < 0.87
    low = torch.where(few, float(SIDES[0]), 320.0)
    high = torch.where(few, 320.0, float(SIDES[1]))
    short = torch.exp(torch.rand(count) * (high / low).log() + low.log())
    aspect = torch.exp(_uniform(0, math.log(MAX_ASPECT), count))
    aspect = torch.where(torch.rand(count) < 0.12, torch.ones(()), aspect)
    pair = torch.stack([(short * aspect).clamp(max=SIDES[1]), short], 1)
    return torch.where(torch.rand(count, 1) < 0.5, pair, pair.flip(1))


def _outlines(shape: Tensor, large: Tensor, unit: Tensor) -> tuple[Tensor, ...]:
    """Reach, turn, and the edge's normal (its angle from a tip's) and distance."""
    radius = torch.where(large > 0, _uniform(*RADII["large"], 1), 0.0)
    small, big = (_uniform(*RADII[name], *shape.shape) for name in ("small", "large"))
    radius = torch.where(large > 0, big, small) * unit[:, None]
    wide = (shape == 1) & (torch.rand(shape.shape) < 0.6)
    reach = torch.where(wide, radius * math.sqrt(2), radius)
    turn = _uniform(-MAX_TURN, MAX_TURN, *shape.shape) + torch.where(shape == 1, math.pi / 4, 0.0)
    inner = _uniform(0.38, 0.45, *shape.shape)
    fifth = math.pi / 5
    star = torch.atan2(1 - inner * math.cos(fifth), inner * math.sin(fifth))
    angles = torch.tensor([0.0, math.pi / 4, math.pi / 3, 0.0])
    normal = torch.where(shape == 3, star, angles[shape])
    return reach, turn, normal, reach * torch.cos(normal)


def _boxes(shape: Tensor, reach: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """The corners of the upright boxes around (0, 0), (scenes, 3, 2) each."""
    step = torch.arange(5.0)
    fold = FOLDS[shape][..., None]
    angle = turn[..., None] + 2 * math.pi * torch.minimum(step, fold - 1) / fold
    tips = torch.stack([torch.sin(angle), -torch.cos(angle)], -1) * reach[..., None, None]
    ring = (shape == 0)[..., None]
    low = torch.where(ring, -reach[..., None], tips.amin(2))
    return low, torch.where(ring, reach[..., None], tips.amax(2))


def plan(count: int) -> Plan:
    """Random scenes; those in which a shape finds no room are left out."""
    size = _sizes(count)
    unit = size.amin(1)
    shape = torch.randint(4, (count, MOST))
    large = torch.randint(2, (count, MOST))
    number = torch.multinomial(torch.tensor([0.2, 0.3, 0.5]), count, replacement=True) + 1
    ground = torch.randint(8, (count,))
    color = (ground[:, None] + torch.randint(1, 8, (count, MOST))) % 8
    reach, turn, normal, away = _outlines(shape, large, unit)
    low, high = _boxes(shape, reach, turn)
    margin = _uniform(-0.02, 0.06, count, 1).clamp(min=0) * unit[:, None]
    center = torch.empty(count, MOST, 2)
    valid = torch.ones(count, dtype=torch.bool)
    for k in range(MOST):
        room = size - (high - low)[:, k]
        tries = torch.rand(count, TRIES, 2) * room[:, None] - low[:, None, k]
        fits = (room > 0).all(1)[:, None].expand(-1, TRIES)
        for j in range(k):
            gap = (tries - center[:, None, j]).abs()
            fits = fits & (gap.square().sum(2).sqrt() >= (reach[:, k] + reach[:, j])[:, None] + margin)
            fits = fits & (gap[..., 0] >= MIN_GAP * size[:, :1])
        center[:, k] = tries[torch.arange(count), fits.float().argmax(1)]
        valid &= fits.any(1) | (k >= number)
    place = center / size[:, None]
    absent = torch.arange(MOST) >= number[:, None]
    order = torch.where(absent, 2.0, place[..., 0]).argsort(1)
    there = ~absent
    shape, color, large = (torch.where(there, p, -1).gather(1, order) for p in (shape, color, large))
    x, y, reach, turn, normal, away = (
        p.gather(1, order) for p in (place[..., 0], place[..., 1], reach, turn, normal, away)
    )
    truth = Truth(shape, color, large, x, y, ground)
    rgb = (PALETTE[color] + torch.randint(-20, 21, (count, MOST, 3))).clamp(0, 255)
    back = (PALETTE[ground] + torch.randint(-20, 21, (count, 3))).clamp(0, 255)
    fold = FOLDS[shape.clamp(min=0)]
    fold = torch.where(shape == 0, 1e-3, fold)  # a circle: one part, the normal is the angle
    rest = (size, reach, turn, fold, normal, away, rgb, back)
    return Plan(truth.take(valid), *(part[valid] for part in rest))


def _cover(plan: Plan, k: int, x: Tensor, y: Tensor, soft: Tensor, side: int) -> Tensor:
    """How much of each pixel the k-th shapes cover, (scenes, side, side)."""

    def one(part: Tensor) -> Tensor:
        return part[:, k, None, None]

    u = x - one(plan.truth.x) * plan.size[:, 0, None, None]
    v = y - one(plan.truth.y) * plan.size[:, 1, None, None]
    length = (u * u + v * v).sqrt()
    angle = torch.atan2(u, -v) - one(plan.turn)
    part = 2 * math.pi / one(plan.fold)
    sector = torch.round(angle / part) * part
    local = angle - sector
    ring = one(plan.truth.shape) == 0
    bent = torch.where(ring, 0.0, local.abs() - one(plan.normal))
    distance = length * torch.cos(bent) - torch.where(ring, one(plan.reach), one(plan.away))
    normal = torch.where(ring, angle, sector + local.sign() * one(plan.normal)) + one(plan.turn)
    across = torch.sin(normal) * plan.size[:, 0, None, None]
    down = torch.cos(normal) * plan.size[:, 1, None, None]
    step = (across * across + down * down).sqrt() / side
    cover = (0.5 - distance / (step * soft)).clamp(0, 1)
    return cover * (one(plan.truth.shape) >= 0)


def paint(plan: Plan, noise: Tensor, dice: Tensor, side: int) -> Tensor:
    """Pixels (scenes, 3, side, side) as bytes; `noise` is normal, `dice` (scenes, 8) uniform."""
    roll = [dice[:, i, None, None, None] for i in range(dice.shape[1])]
    line = (torch.arange(side) + 0.5) / side
    across, down = line[None, None, :], line[None, :, None]
    x, y = across * plan.size[:, 0, None, None], down * plan.size[:, 1, None, None]
    turn = 2 * math.pi * roll[0]
    ramp = torch.cos(turn) * (2 * across - 1) + torch.sin(turn) * (2 * down - 1)
    ramp = ramp / (torch.cos(turn).abs() + torch.sin(turn).abs())
    lift = torch.where(roll[1] < 0.4, 5 + 50 * roll[1], 0.0)
    pixels = plan.ground[:, :, None, None] + ramp * lift
    shrink = (plan.size / side).clamp(min=1).prod(1).sqrt()[:, None, None, None]
    level = torch.where(roll[2] < 0.45, 1 + 24.4 * roll[2], 0.6) / shrink
    grain = level * torch.where(roll[3] < 0.3, noise[:, :1], noise)
    pixels = pixels + grain
    grow = (side / plan.size.amin(1)).clamp(min=1)[:, None, None]
    soft = (0.8 + 0.8 * roll[4][:, 0]) * grow
    for k in range(MOST):
        cover = _cover(plan, k, x, y, soft, side)[:, None]
        color = plan.rgb[:, k, :, None, None] + torch.where(roll[5] < 0.5, grain, 0.0)
        pixels = pixels + cover * (color - pixels)
    return (pixels + 0.5).clamp(0, 255).to(torch.uint8)


@functools.cache
def _pool(side: int) -> Tensor:
    """Normal noise to choose from."""
    return torch.randn(96, 3, side, side)


@functools.cache
def _painter(compiled: bool) -> Any:
    return torch.compile(paint, dynamic=False) if compiled else paint


class Sketches:
    """A source of batches of one size."""

    def __init__(self, batch: int, side: int, compiled: bool) -> None:
        self.batch, self.side, self.compiled = batch, side, compiled
        self.spare: Plan | None = None

    def next(self) -> tuple[Tensor, Plan]:
        """Pixels as bytes, and the plan with the truth."""
        while self.spare is None or len(self.spare.size) < self.batch:
            self.spare = _join(self.spare, plan(2 * self.batch))
        one = _part(self.spare, slice(0, self.batch))
        self.spare = _part(self.spare, slice(self.batch, None))
        noise = _pool(self.side)[torch.randint(96, (self.batch,))]
        dice = torch.rand(self.batch, 8)
        pixels: Tensor = _painter(self.compiled)(one, noise, dice, self.side)
        return pixels, one


def _part(plan: Plan, rows: slice) -> Plan:
    truth = Truth(*(p[rows] for p in plan.truth))
    return Plan(truth, *(p[rows].contiguous() for p in plan[1:]))


def _join(one: Plan | None, other: Plan) -> Plan:
    if one is None:
        return other
    truth = Truth(*(torch.cat(p) for p in zip(one.truth, other.truth, strict=True)))
    return Plan(truth, *(torch.cat(p) for p in zip(one[1:], other[1:], strict=True)))
