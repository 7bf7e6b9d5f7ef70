"""Changes one thing of what scenes show, for captions that are false."""

from __future__ import annotations

import torch
from torch import Tensor

from .scenes import COLOR_NAMES, SHAPE_NAMES, SIZES
from .truth import Truth

SHORT = ("color", "shape", "count", "order")  # what a short caption can be wrong in
DETAILED = (*SHORT, "size", "place", "background")
COLORS, SHAPES = len(COLOR_NAMES), len(SHAPE_NAMES)


def falsified(truth: Truth, kind: str) -> Truth:
    """The scenes with one thing changed; `order` leaves single shapes as they are."""
    number, count = len(truth.ground), truth.count
    chosen = (torch.rand(number) * count).long()
    here = torch.arange(truth.shape.shape[1])[None] == chosen[:, None]
    if kind == "color":
        other = (truth.color + torch.randint(1, COLORS, (number, 1))) % COLORS
        return truth._replace(color=torch.where(here, other, truth.color))
    if kind == "shape":
        other = (truth.shape + torch.randint(1, SHAPES, (number, 1))) % SHAPES
        return truth._replace(shape=torch.where(here, other, truth.shape))
    if kind == "size":
        return truth._replace(size=torch.where(here, 1 - truth.size, truth.size))
    if kind == "background":
        return truth._replace(ground=(truth.ground + torch.randint(1, COLORS, (number,))) % COLORS)
    if kind == "place":
        down = (torch.rand(number) < 0.5)[:, None]
        step = torch.randint(1, 3, (number, 1))
        x, y = (((part + step) % 3 + 0.5) / 3 for part in (truth.column, truth.row))
        x, y = torch.where(here & ~down, x, truth.x), torch.where(here & down, y, truth.y)
        return truth._replace(x=x, y=y)
    if kind == "count":
        return _counted(truth, here)
    if kind == "order":
        return _swapped(truth)
    raise ValueError(kind)


def _counted(truth: Truth, here: Tensor) -> Truth:
    """A shape too many, or the chosen one too few."""
    number, most = truth.shape.shape
    count = truth.count
    more = (count == 1) | ((count < most) & (torch.rand(number) < 0.5))
    new = (torch.arange(most)[None] == count[:, None]) & more[:, None]
    gone = here & ~more[:, None]
    color = (truth.ground + torch.randint(1, COLORS, (number,))) % COLORS
    fresh = torch.randint(SHAPES, (number,)), color, torch.randint(len(SIZES), (number,))
    shape, color, size = (
        torch.where(gone, -1, torch.where(new, one[:, None], old))
        for one, old in zip(fresh, truth[:3], strict=True)
    )
    x, y = (torch.where(new, torch.rand(number, 1), old) for old in (truth.x, truth.y))
    order = torch.where(shape >= 0, x, 2.0).argsort(1)
    shape, color, size, x, y = (p.gather(1, order) for p in (shape, color, size, x, y))
    return Truth(shape, color, size, x, y, truth.ground)


def _swapped(truth: Truth) -> Truth:
    """Two neighbours have changed places."""
    number, most = truth.shape.shape
    first = (torch.rand(number) * (truth.count - 1)).long()[:, None]
    slots = torch.arange(most)[None].expand(number, -1)
    step = (slots == first).long() - (slots == first + 1).long()
    order = torch.where(truth.count[:, None] > 1, slots + step, slots)
    shape, color, size = (part.gather(1, order) for part in truth[:3])
    return truth._replace(shape=shape, color=color, size=size)


def claims(truth: Truth, kinds: tuple[str, ...]) -> tuple[Tensor, Truth]:
    """The scenes in a random order, and what is claimed of them in that order.

    Of half of them the truth is, of the others something false: of an equal part one thing of
    each kind, of a last part all that another scene shows.
    """
    rows = torch.randperm(len(truth.ground))
    mixed = truth.take(rows)
    false = len(rows) // 2
    parts = [mixed.take(torch.arange(false, len(rows)))]
    for part, kind in zip(torch.arange(false).chunk(len(kinds) + 1), (*kinds, ""), strict=False):
        some = mixed.take(part)
        parts.append(falsified(some, kind) if kind else some.take(torch.arange(len(part)).roll(1)))
    claimed = Truth(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))
    return rows.roll(-false), claimed
