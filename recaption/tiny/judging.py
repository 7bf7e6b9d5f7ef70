"""The judge's questions as tokens: pictures, what is claimed of them, and yes or no.

A helper of the training, not of the model, has the language model know early at each word of a
caption whether another one should stand there; the last layer then only has to gather that.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import falsify, network, prompts, text
from .model import PAD, Size
from .truth import END_WORD, Captions, Truth

LEADS = 1_000  # different beginnings of a judge's question, for each form of caption
LONGEST = 128  # tokens of the longest judge's prompt that is trained on
LONGEST_LEAD = 56  # of these, before the caption
FORMS = (falsify.SHORT, falsify.DETAILED)
RARE = 5.0  # weight of wrong words
FEW = 8  # one scene in so many is also given words that describe no scene


class Asked(NamedTuple):
    """Questions about some scenes, and which words of the captions are wrong (-1: no word)."""

    rows: Tensor
    batch: network.Batch
    words_at: Tensor
    wrong: Tensor


class Judging:
    """Asks about captions of both forms, and about words that describe nothing."""

    def __init__(self, processor: Any, size: Size, captions: Captions) -> None:
        self.captions = captions
        ids = [processor.tokenizer(w + END_WORD)["input_ids"] for w in ("no", "yes")]
        self.answers = torch.tensor(ids)  # of one length; the first tokens tell them apart
        rng = random.Random(5)
        self.leads: list[prompts.Prompts] = []
        for known in prompts.KNOWN:
            rows: list[tuple[list[int], int]] = []
            while len(rows) < LEADS:
                asked = text.judge_prompt(text.question(rng, known), prompts.GAP)
                messages = prompts.usual(asked)
                if rng.random() < 0.1:
                    messages.insert(0, {"role": "system", "content": text.SYSTEM})
                lead, tail = prompts.around(processor, size, messages)
                if len(lead) <= LONGEST_LEAD:
                    rows.append((lead, 0))
            self.leads.append(prompts.stack(rows))
        self.tail = torch.tensor(tail)
        few: list[tuple[list[int], int]] = []
        while len(few) < LEADS:
            known = rng.choice(prompts.KNOWN)
            asked = text.judge_prompt(text.question(rng, known), text.no_caption(rng))
            row = prompts.render(processor, size, prompts.usual(asked))
            if len(row) <= LONGEST:
                few.append((row, 0))
        self.nonsense = prompts.stack(few)

    def written(self, claimed: Truth, form: int, leads: prompts.Prompts) -> prompts.Prompts:
        """The questions whether what is claimed is so, in short (0) or detailed captions."""
        said = self._said(claimed, form)
        said = torch.where(said == self.captions.fixed["end"], -1, said)
        said[:, 0] = self.captions.fixed["a"]  # it stands behind a space
        start = torch.where(
            torch.arange(leads.ids.shape[1]) < leads.lengths[:, None], leads.ids, -1
        )
        ids = torch.cat([start, said, self.tail.expand(len(said), -1)], 1)
        order = (ids < 0).to(torch.int8).argsort(dim=1, stable=True)
        lengths = (ids >= 0).sum(1)
        ids = ids.gather(1, order).clamp(min=PAD)
        return prompts.Prompts(ids, lengths, leads.image_at, leads.kinds)

    def ask(self, rows: Tensor, truth: Truth, claimed: Truth, form: int) -> Asked:
        """Questions about what is claimed of scenes (rows of a batch), with the right answers."""
        leads = self.leads[form].take(torch.randint(LEADS, (len(rows),)))
        said, right = self._said(claimed, form), self._said(truth, form)
        wrong = torch.where(said < 0, -1, (said != right).long())
        answers = self.answers[(said == right).all(1).long()]
        batch = network.assemble(self.written(claimed, form, leads), answers)
        return Asked(rows, batch, leads.lengths[:, None] + torch.arange(said.shape[1]), wrong)

    def claims(self, truth: Truth) -> list[Asked]:
        """For both forms of captions, true and false ones, one for each scene."""
        made = []
        for form, kinds in enumerate(FORMS):
            rows, claimed = falsify.claims(truth, kinds)
            made.append(self.ask(rows, truth.take(rows), claimed, form))
        return made

    def spoilt(self, truth: Truth) -> tuple[Tensor, network.Batch]:
        """A few scenes, and whether words that describe no scene describe them."""
        rows = torch.randperm(len(truth.ground))[: max(1, len(truth.ground) // FEW)]
        none = self.nonsense.take(torch.randint(LEADS, (len(rows),)))
        return rows, network.assemble(none, self.answers[:1].expand(len(rows), -1))

    def _said(self, truth: Truth, form: int) -> Tensor:
        return self.captions.detailed(truth) if form else self.captions.short(truth)


def build_helper(size: Size) -> nn.ModuleDict:
    """A linear reader of what the last layer is given."""
    return nn.ModuleDict({"wrong": nn.Linear(size.width, 2)})


def judging_loss(
    model: Any, helper: nn.ModuleDict, seen: Tensor, asked: Asked
) -> tuple[Tensor, Tensor]:
    """How badly the questions are answered, and how badly the helper knows the wrong words."""
    logits, before = network.follow(model, seen[asked.rows], asked.batch)
    answers = asked.batch.answers.flatten()
    loss = functional.cross_entropy(logits.float().flatten(0, 1), answers)
    at = asked.words_at[..., None].expand(-1, -1, before.shape[2])
    words = functional.rms_norm(before.gather(1, at).float(), before.shape[2:])
    out = helper["wrong"](words.to(before.dtype)).float()
    weight = torch.tensor([1.0, RARE])
    return loss, functional.cross_entropy(
        out.flatten(0, 1), asked.wrong.flatten(), weight, ignore_index=-1
    )
