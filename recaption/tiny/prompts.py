"""Prompts as tokens, as the processor renders them."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import text
from .model import FAKE, GLOBAL, IMAGE, PAD, Size

LONGEST = 96  # tokens of the longest prompt that is trained on
GAP = "\0"  # a caption to be filled in
KNOWN = (text.PROMPT_SHORT, text.PROMPT_DETAILED)


class Prompts(NamedTuple):
    """Padded prompts: tokens, their number, the first image token, and short (0) or detailed."""

    ids: Tensor
    lengths: Tensor
    image_at: Tensor
    kinds: Tensor

    def take(self, rows: Tensor) -> Prompts:
        """Some of the prompts."""
        return Prompts(*(part[rows] for part in self))


def render(processor: Any, size: Size, messages: list[dict[str, object]]) -> list[int]:
    """The tokens of a conversation as the processor would make them."""
    template = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return _tokens(processor, size, template)


def _tokens(processor: Any, size: Size, template: str) -> list[int]:
    ids: list[int] = processor.tokenizer(template, add_special_tokens=False)["input_ids"]
    at = ids.index(IMAGE)
    return [*ids[:at], FAKE, GLOBAL, *[IMAGE] * size.image_tokens, FAKE, *ids[at + 1 :]]


def usual(prompt: str) -> list[dict[str, object]]:
    """A prompt in its usual form: behind the picture, with no system message."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]


def plain(processor: Any, size: Size, kind: int) -> Prompts:
    """One of the two known prompts in its usual form."""
    return stack([(render(processor, size, usual(KNOWN[kind])), kind)])


def others(processor: Any, size: Size, count: int) -> Prompts:
    """Other prompts, which get a short caption, and unusual forms of the known ones."""
    rng = random.Random(3)
    rows: list[tuple[list[int], int]] = []
    while len(rows) < count:
        known = rng.random() < 0.3
        kind = rng.randint(0, 1) if known else 0
        prompt = KNOWN[kind] if known else text.other_prompt(rng)
        row = render(processor, size, text.conversation(rng, prompt))
        if len(row) <= LONGEST:
            rows.append((row, kind))
    return stack(rows)


def around(processor: Any, size: Size, messages: list[dict[str, object]]) -> tuple[list[int], ...]:
    """The tokens before and behind the caption that stands for GAP in a conversation."""
    template = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    before, behind = template.split(f" {GAP}")
    return _tokens(processor, size, before), processor.tokenizer(behind)["input_ids"]


def stack(rows: list[tuple[list[int], int]]) -> Prompts:
    """Padded prompts of their tokens and kinds."""
    width = max(len(row) for row, _ in rows)
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row, _ in rows])
    lengths = torch.tensor([len(row) for row, _ in rows])
    image_at = torch.tensor([row.index(IMAGE) for row, _ in rows])
    return Prompts(ids, lengths, image_at, torch.tensor([kind for _, kind in rows]))
