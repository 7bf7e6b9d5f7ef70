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
NUMBERS = (0.4, 0.25, 0.35)  # share of scenes with one, two, three shapes
TRIES = 12
NOMINAL = 128  # pixels: smaller source pictures are blurred by their enlargement
TIPS = (1.0, 4.0, 3.0, 5.0)  # by shape


class Plan(NamedTuple):
    """Scenes to be painted; lengths are in source pixels, (scenes, 3) for each shape."""

    truth: Truth
    size: Tensor
    reach: Tensor
    turn: Tensor
    normal: Tensor
    rgb: Tensor
    ground: Tensor
    soft: Tensor


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


def _outlines(shape: Tensor, large: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reach, turn, and the angle between a star's point and the normal of its edge."""
    small, big = (_uniform(*RADII[name], *shape.shape) for name in ("small", "large"))
    radius = torch.where(large > 0, big, small) * unit[:, None]
    wide = (shape == 1) & (torch.rand(shape.shape) < 0.6)
    reach = torch.where(wide, radius * math.sqrt(2), radius)
    turn = _uniform(-MAX_TURN, MAX_TURN, *shape.shape)
    inner = _uniform(0.38, 0.45, *shape.shape)
    fifth = math.pi / 5
    return reach, turn, torch.atan2(1 - inner * math.cos(fifth), inner * math.sin(fifth))


def _boxes(shape: Tensor, reach: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """The corners of the upright boxes around (0, 0), (scenes, 3, 2) each."""
    step = torch.arange(5.0)
    fold = torch.tensor(TIPS)[shape][..., None]
    first = turn + torch.where(shape == 1, math.pi / 4, 0.0)
    angle = first[..., None] + 2 * math.pi * torch.minimum(step, fold - 1) / fold
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
    number = torch.multinomial(torch.tensor(NUMBERS), count, replacement=True) + 1
    ground = torch.randint(8, (count,))
    color = (ground[:, None] + torch.randint(1, 8, (count, MOST))) % 8
    reach, turn, normal = _outlines(shape, large, unit)
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
            fits = fits & (
                gap.square().sum(2).sqrt() >= (reach[:, k] + reach[:, j])[:, None] + margin
            )
            fits = fits & (gap[..., 0] >= MIN_GAP * size[:, :1])
        center[:, k] = tries[torch.arange(count), fits.float().argmax(1)]
        valid &= fits.any(1) | (k >= number)
    place = center / size[:, None]
    absent = torch.arange(MOST) >= number[:, None]
    order = torch.where(absent, 2.0, place[..., 0]).argsort(1)
    there = ~absent
    shape, color, large = (
        torch.where(there, p, -1).gather(1, order) for p in (shape, color, large)
    )
    x, y, reach, turn, normal = (
        p.gather(1, order) for p in (place[..., 0], place[..., 1], reach, turn, normal)
    )
    truth = Truth(shape, color, large, x, y, ground)
    palette = torch.tensor(list(COLORS.values()), dtype=torch.float32)
    rgb = (palette[color] + torch.randint(-20, 21, (count, MOST, 3))).clamp(0, 255)
    back = (palette[ground] + torch.randint(-20, 21, (count, 3))).clamp(0, 255)
    grow = (NOMINAL / unit).clamp(min=1)
    rest = (size, reach, turn, normal, rgb, back, _uniform(0.8, 1.6, count) * grow)
    return Plan(truth.take(valid), *(part[valid] for part in rest))


def covers(plan: Plan, side: int) -> Tensor:
    """How much of each pixel every shape covers, (scenes, 3, side, side)."""

    def one(part: Tensor) -> Tensor:
        return part[:, :, None, None]

    line = (torch.arange(side) + 0.5) / side
    wide, high = plan.size[:, 0, None, None, None], plan.size[:, 1, None, None, None]
    u = (line[None, :] - one(plan.truth.x)) * wide
    v = (line[:, None] - one(plan.truth.y)) * high
    length = (u * u + v * v).sqrt() + 1e-3
    step = ((u * wide).square() + (v * high).square()).sqrt() / (length * side)
    cos, sin = torch.cos(one(plan.turn)), torch.sin(one(plan.turn))
    shape, reach = one(plan.truth.shape.float()), one(plan.reach)
    right, down = (u * cos + v * sin).abs(), v * cos - u * sin
    ring = length - reach
    square = torch.maximum(right, down.abs()) - reach * math.sqrt(0.5)
    triangle = torch.maximum(down, math.sqrt(0.75) * right - 0.5 * down) - 0.5 * reach
    distance = torch.where(shape == 0, ring, torch.where(shape == 1, square, triangle))
    distance = torch.where(shape == 3, _star(right, -down, one(plan.normal), reach), distance)
    cover = (0.5 - distance / (step * plan.soft[:, None, None, None])).clamp(0, 1)
    return torch.where(shape >= 0, cover, 0.0)


def _star(right: Tensor, up: Tensor, normal: Tensor, reach: Tensor) -> Tensor:
    """The distance to the edge of a star, its points folded onto the upper one."""
    a, b = math.cos(math.pi / 5), math.sin(math.pi / 5)
    over = 2 * (a * right - b * up).clamp(min=0)
    right, up = right - over * a, up + over * b
    over = 2 * (-a * right - b * up).clamp(min=0)
    right, up = right + over * a, up + over * b
    return right.abs() * torch.sin(normal) + (up - reach) * torch.cos(normal)


def paint(plan: Plan, cover: Tensor, noise: Tensor, dice: Tensor) -> Tensor:
    """Pixels (scenes, 3, side, side) as bytes; `noise` is from the pool, `dice` (scenes, 5) uniform."""
    side = noise.shape[-1]
    roll = [dice[:, i, None, None, None] for i in range(dice.shape[1])]
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    turn = 2 * math.pi * roll[0]
    cos, sin = torch.cos(turn), torch.sin(turn)
    ramp = (cos * line[None, :] + sin * line[:, None]) / (cos.abs() + sin.abs())
    lift = torch.where(roll[1] < 0.4, 5 + 50 * roll[1], 0.0)
    pixels = plan.ground[:, :, None, None] + ramp * lift
    shrink = (plan.size / side).clamp(min=1).prod(1).sqrt()[:, None, None, None]
    level = torch.where(roll[2] < 0.45, 1 + 24.4 * roll[2], 0.6) / shrink
    noise = noise / 32
    grain = level * torch.where(roll[3] < 0.3, noise[:, :1], noise)
    pixels = pixels + grain
    over = torch.where(roll[4] < 0.5, grain, 0.0)
    for k in range(MOST):
        color = plan.rgb[:, k, :, None, None] + over
        pixels = pixels + cover[:, k, None] * (color - pixels)
    return (pixels + 0.5).clamp(0, 255).to(torch.uint8)


@functools.cache
def _pool(side: int) -> Tensor:
    """Normal noise to choose from, in 32nds."""
    return (torch.randn(96, 3, side, side) * 32).clamp(-127, 127).to(torch.int8)


@functools.cache
def _functions(compiled: bool) -> tuple[Any, Any]:
    if not compiled:
        return covers, paint
    return torch.compile(covers, dynamic=False), torch.compile(paint, dynamic=False)


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
        cover_all, paint_all = _functions(self.compiled)
        cover = cover_all(one, self.side)
        pixels: Tensor = paint_all(one, cover, noise, torch.rand(self.batch, 5))
        return pixels, one


def _part(plan: Plan, rows: slice) -> Plan:
    truth = Truth(*(p[rows] for p in plan.truth))
    return Plan(truth, *(p[rows].contiguous() for p in plan[1:]))


def _join(one: Plan | None, other: Plan) -> Plan:
    if one is None:
        return other
    truth = Truth(*(torch.cat(p) for p in zip(one.truth, other.truth, strict=True)))
    return Plan(truth, *(torch.cat(p) for p in zip(one[1:], other[1:], strict=True)))
