"""Measures the judge: how well the probability of yes tells true captions from false ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import data, falsify, prompts, text
from .evaluate import Captioner, Drawn, draw_all
from .judging import FORMS
from .model import PAD, SIZES
from .truth import Captions, Truth, from_table

ALL = "all"
PART = 500  # scenes that are looked at together


@dataclass(frozen=True)
class Verdicts:
    """Scores of true captions of one form, and of captions false in each kind."""

    form: str
    true: Tensor
    false: dict[str, Tensor]

    def areas(self) -> dict[str, float]:
        """The area under the curve for each kind, and for all of them together."""
        every = {ALL: torch.cat(list(self.false.values())), **self.false}
        return {kind: _area(self.true, scores) for kind, scores in every.items()}


def auc(scores: Tensor, good: Tensor) -> float:
    """The chance that a good one is above a bad one; a tie counts half."""
    levels, at = scores.double().unique(return_inverse=True)
    bad = torch.bincount(at[~good], minlength=len(levels))
    below = bad.cumsum(0) - bad
    wins = (below[at[good]] + bad[at[good]] / 2).double().sum()
    return float(wins / (good.sum() * (~good).sum()))


def _area(true: Tensor, false: Tensor) -> float:
    good = torch.arange(len(true) + len(false), device=true.device) < len(true)
    return auc(torch.cat([true, false]), good)


class Judge:
    """Asks a model about captions of pictures, as anyone would load it."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner
        tokenizer = captioner.processor.tokenizer
        self.yes, self.no = (tokenizer(w)["input_ids"][0] for w in ("yes", "no"))
        self.captions = Captions(tokenizer)

    def scores(self, pixels: dict[str, Tensor], known: str, captions: Sequence[str]) -> Tensor:
        """The probability of yes against no for the caption of each picture."""
        processor, size = self.captioner.processor, SIZES["tiny"]
        asked = [prompts.usual(text.judge_prompt(known, caption)) for caption in captions]
        rows = [prompts.render(processor, size, messages) for messages in asked]
        width = max(map(len, rows))
        ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
        tokens = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
        tokens = {name: value.to(self.captioner.device) for name, value in tokens.items()}
        with torch.no_grad():
            made: Any = self.captioner.model.generate(
                **pixels,
                **tokens,
                max_new_tokens=1,
                output_logits=True,
                return_dict_in_generate=True,
            )
        logits = made.logits[0].float()
        return (logits[:, self.yes] - logits[:, self.no]).sigmoid().cpu()

    def verdicts(self, drawn: Sequence[Drawn]) -> list[Verdicts]:
        """Verdicts on the true and on false captions of drawn scenes, in both forms."""
        out = []
        table = torch.stack([torch.from_numpy(data.truth(d.scene)) for d in drawn])
        truth = from_table(table)
        pixels = self.captioner.see([d.data for d in drawn])
        for form, (known, kinds) in enumerate(zip(prompts.KNOWN, FORMS, strict=True)):
            right = self._written(truth, form)
            false: dict[str, Tensor] = {}
            for kind in kinds:
                wrong = self._written(falsify.falsified(truth, kind), form)
                at = [i for i, said in enumerate(wrong) if said != right[i]]
                false[kind] = self.scores(
                    {k: v[at] for k, v in pixels.items()}, known, [wrong[i] for i in at]
                )
            name = ("short", "detailed")[form]
            out.append(Verdicts(name, self.scores(pixels, known, right), false))
        return out

    def _written(self, truth: Truth, form: int) -> list[str]:
        """Captions as text."""
        said = self.captions.detailed(truth) if form else self.captions.short(truth)
        rows = [[i for i in row if i >= 0] for row in said.tolist()]
        written: list[str] = self.captioner.processor.tokenizer.batch_decode(
            rows, skip_special_tokens=True
        )
        return written


def measure(captioner: Captioner, drawn: Sequence[Drawn]) -> list[Verdicts]:
    """Verdicts on many scenes: for each form of caption, then for both together."""
    judge = Judge(captioner)
    parts = [judge.verdicts(drawn[at : at + PART]) for at in range(0, len(drawn), PART)]
    forms = [_joined(one[0].form, one) for one in zip(*parts, strict=True)]
    return [*forms, _joined("both", forms)]


def _joined(form: str, parts: Sequence[Verdicts]) -> Verdicts:
    """Several verdicts as one, kind by kind."""
    kinds = dict.fromkeys(kind for p in parts for kind in p.false)
    false = {kind: torch.cat([p.false[kind] for p in parts if kind in p.false]) for kind in kinds}
    return Verdicts(form, torch.cat([p.true for p in parts]), false)


def table(verdicts: Sequence[Verdicts]) -> str:
    """The areas in Markdown."""
    kinds = [ALL, *falsify.DETAILED]
    lines = ["| captions | " + " | ".join(kinds) + " |", "| --- " * (len(kinds) + 1) + "|"]
    for one in verdicts:
        areas = one.areas()
        cells = [f"{areas[kind]:.4f}" if kind in areas else "" for kind in kinds]
        lines.append(f"| {one.form} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="recaption.tiny.verdicts", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--scenes", type=int, default=1_000, help="of one, two and three shapes each"
    )
    parser.add_argument("--workers", type=int, default=2, help="drawing processes")
    args = parser.parse_args()
    sets = draw_all(args.scenes, args.workers)
    plain = [d for group, drawn in sets if group.kind == "plain" for d in drawn]
    print(table(measure(Captioner(args.model, None), plain)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
