"""What many scenes show, as tensors, and the tokens of the captions that say it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .scenes import COLOR_NAMES, HORIZONTAL, SHAPE_NAMES, SIZES, VERTICAL

END_WORD = "<end_of_utterance>"


class Truth(NamedTuple):
    """Shapes from left to right, (scenes, 3) each, -1 where there is none; x, y as shares."""

    shape: Tensor
    color: Tensor
    size: Tensor
    x: Tensor
    y: Tensor
    ground: Tensor

    @property
    def count(self) -> Tensor:
        """The number of shapes in each scene."""
        return (self.shape >= 0).sum(1)

    @property
    def column(self) -> Tensor:
        """The third from left to right that holds each centre."""
        return (3 * self.x).long().clamp(0, 2)

    @property
    def row(self) -> Tensor:
        """The third from top to bottom that holds each centre."""
        return (3 * self.y).long().clamp(0, 2)

    def take(self, rows: Tensor) -> Truth:
        """Some of the scenes."""
        return Truth(*(part[rows] for part in self))


def from_table(table: Tensor) -> Truth:
    """From rows as `data.truth` makes them."""
    parts = table[:, :-1].unflatten(1, (-1, 5))
    shape, color, size = (parts[..., i].long() for i in range(3))
    return Truth(shape, color, size, parts[..., 3], parts[..., 4], table[:, -1].long())


def mirrored(truth: Truth, which: Tensor) -> Truth:
    """The truth of pictures of which some were mirrored."""
    count = truth.count[:, None]
    order = torch.arange(truth.shape.shape[1])[None].expand_as(truth.shape)
    flipped = torch.where(order < count, count - 1 - order, order)
    order = torch.where(which[:, None], flipped, order)
    there = truth.shape >= 0
    x = torch.where(which[:, None] & there, 1 - truth.x, truth.x)
    shape, color, size, x, y = (p.gather(1, order) for p in (*truth[:3], x, truth.y))
    return Truth(shape, color, size, x, y, truth.ground)


class Captions:
    """Writes captions as tokens: every word of a caption is one token."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        def word(name: str) -> int:
            ids = tokenizer(name, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                raise ValueError(f"{name!r} is not one token")
            return int(ids[0])

        def words(names: tuple[str, ...]) -> Tensor:
            return torch.tensor([word(f" {name}") for name in names])

        self.shape, self.color, self.size = map(words, (SHAPE_NAMES, COLOR_NAMES, SIZES))
        self.row, self.column = words(VERTICAL), words(HORIZONTAL)
        fixed = ("a", " a", " and", ",", " at", " the", " on", " background", END_WORD)
        names = ("first", "a", "and", "comma", "at", "the", "on", "background", "end")
        self.fixed = dict(zip(names, map(word, fixed), strict=True))

    def _join(self, columns: list[Tensor | str], truth: Truth) -> Tensor:
        size = truth.ground.shape
        made = [torch.full(size, self.fixed[c]) if isinstance(c, str) else c for c in columns]
        return torch.stack(made, 1)

    def short(self, truth: Truth) -> Tensor:
        """Short captions with their ends, (scenes, 12); -1 behind the end."""
        blocks = []
        for k in range(truth.shape.shape[1]):
            lead: list[Tensor | str] = ["and", "a"] if k else ["first"]
            words = [self.color[truth.color[:, k]], self.shape[truth.shape[:, k]]]
            blocks.append(self._join([*lead, *words], truth))
        tail = self._join(["end"], truth)
        return _close(blocks, tail, truth.count)

    def detailed(self, truth: Truth) -> Tensor:
        """Detailed captions with their ends, (scenes, 32); -1 behind the end."""
        blocks = []
        rows, columns = truth.row, truth.column
        for k in range(truth.shape.shape[1]):
            lead: list[Tensor | str] = ["comma", "a"] if k else ["first"]
            what = [self.size[truth.size[:, k]], self.color[truth.color[:, k]]]
            what.append(self.shape[truth.shape[:, k]])
            where = [self.row[rows[:, k]], self.column[columns[:, k]]]
            blocks.append(self._join([*lead, *what, "at", "the", *where], truth))
        ground = self.color[truth.ground]
        tail = self._join(["comma", "on", "a", ground, "background", "end"], truth)
        return _close(blocks, tail, truth.count)


def _close(blocks: list[Tensor], tail: Tensor, count: Tensor) -> Tensor:
    """Joins the blocks of the shapes that are there and the tail behind the last."""
    ends = torch.tensor([b.shape[1] for b in blocks]).cumsum(0)
    width = int(ends[-1]) + tail.shape[1]
    out = torch.full((len(tail), width), -1)
    out[:, : int(ends[-1])] = torch.cat(blocks, 1)
    at = ends[count - 1][:, None]
    out[torch.arange(width)[None] >= at] = -1
    return out.scatter(1, at + torch.arange(tail.shape[1]), tail)
