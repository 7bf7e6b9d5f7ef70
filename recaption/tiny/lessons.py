"""What the model is trained on: pictures with their truth, and the captions asked of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import data, network, prompts, sketch
from .model import Size
from .truth import Captions, Truth, from_table, mirrored

OTHER = 8  # one captioned scene in so many also gets another prompt
HELD = 500  # real scenes never trained on


class Lessons:
    """Sketches and real scenes, and both kinds of captions for them."""

    def __init__(
        self, processor: Any, size: Size, sketches: sketch.Sketches, others: int, held: int = HELD
    ) -> None:
        self.sketches, self.held = sketches, held
        self.captions = Captions(processor.tokenizer)
        self.plain = [prompts.plain(processor, size, kind) for kind in (0, 1)]
        self.others = prompts.others(processor, size, others)

    def load(self, folder: Path, count: int) -> None:
        """Takes the first real scenes of a folder; the first of all are held out."""
        pictures, table = data.load(folder, count)
        device = torch.get_default_device()
        self.pictures = torch.from_numpy(pictures).to(device)
        self.truth = from_table(torch.from_numpy(table).to(device))

    @property
    def held_out(self) -> tuple[Tensor, Truth]:
        """Pixels and truth of the real scenes that are never trained on."""
        return self.pictures[: self.held], Truth(*(part[: self.held] for part in self.truth))

    def scenes(self, real: bool) -> tuple[Tensor, Truth, sketch.Plan]:
        """Pixels and truth of a batch, and the plan of the sketches that it begins with.

        With real scenes, these are the second half.
        """
        pixels, plan = self.sketches.next()
        if not real:
            return pixels, plan.truth, plan
        half = len(pixels) // 2
        rows = torch.randint(self.held, len(self.pictures), (half,))
        flip = torch.rand(half) < 0.5
        drawn = self.pictures[rows]
        drawn = torch.where(flip[:, None, None, None], drawn.flip(3), drawn)
        truth = mirrored(self.truth.take(rows), flip)
        both = Truth(*(torch.cat([p[:half], q]) for p, q in zip(plan.truth, truth, strict=True)))
        return torch.cat([pixels[:half], drawn]), both, plan

    def batches(self, truth: Truth) -> list[network.Batch]:
        """The two known prompts for all scenes, other prompts for a few."""
        answers = self.captions.short(truth), self.captions.detailed(truth)
        made = [network.assemble(p, a) for p, a in zip(self.plain, answers, strict=True)]
        few = max(1, len(truth.ground) // OTHER)
        other = self.others.take(torch.randint(len(self.others.ids), (few,)))
        wide = torch.full_like(answers[1], -1)
        wide[:, : answers[0].shape[1]] = answers[0]
        mixed = torch.where(other.kinds[:, None] > 0, answers[1][:few], wide[:few])
        return [*made, network.assemble(other, mixed)]

    def recited(self, model: Any, seen: Tensor, truth: Truth) -> list[Tensor]:
        """For both prompts, which scenes' captions the model would say in full."""
        right = []
        for prompt, answer in zip(
            self.plain, (self.captions.short(truth), self.captions.detailed(truth)), strict=True
        ):
            logits = network.answer_logits(model, seen, network.assemble(prompt, answer))
            right.append(((logits.argmax(-1) == answer) | (answer < 0)).all(1))
        return right
