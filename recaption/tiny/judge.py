"""Teaches a trained model the judge's question: `python -m recaption.tiny.judge --out DIR`.

It starts from a model's files and goes on with its captions beside; made for a GPU.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoProcessor

from . import model, network, optim, sketch
from .judging import FEW, Judging, build_helper, judging_loss
from .lessons import Lessons
from .verdicts import auc

WEIGHTS = "model.safetensors"
HELD = 2_000  # real scenes never trained on
PART = 500  # of them are looked at together
SAID, JUDGED = 4.0, 3.0  # weights of captions and judgements, both means over tokens


class Tuner:
    """The model in training, and the sources of its batches."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        size = model.SIZES["tiny"]
        self.start = args.start
        processor: Any = AutoProcessor.from_pretrained(args.start)
        self.model = model.build_model(size)
        self.weights = load_file(args.start / WEIGHTS, str(torch.get_default_device()))
        missing, unknown = self.model.load_state_dict(self.weights, strict=False)
        if unknown or set(missing) - {"lm_head.weight"}:  # tied to the embeddings
            raise ValueError(f"{args.start}: {missing} are missing, {unknown} are not known")
        self.model.tie_weights()
        on_gpu = torch.get_default_device().type == "cuda"
        self.model.set_attn_implementation("sdpa" if on_gpu else network.ATTENTION)
        self.helper = build_helper(size)
        self.stepper = optim.Stepper(self.model, self.helper, args.rate)
        sketches = sketch.Sketches(args.batch, size.image, compiled=False)
        self.lessons = Lessons(processor, size, sketches, args.prompts, args.held)
        self.lessons.load(args.drawn, args.scenes)
        self.judging = Judging(processor, size, self.lessons.captions)
        pixels, self.truth = self.lessons.held_out
        self.pixels = pixels.split(PART)
        self.questions = self.judging.claims(self.truth)

    def step(self, rate: float, help_: float) -> tuple[Tensor, Tensor, Tensor]:
        """One step; gives the losses of captions, of judgements and of the helper."""
        pixels, truth, _ = self.lessons.scenes(real=True)
        seen, _ = network.see(self.model, pixels)
        said = network.reading_loss(self.model, seen, self.lessons.batches(truth))
        rows, spoilt = self.judging.spoilt(truth)
        judged = network.reading_loss(self.model, seen[rows], [spoilt]) / FEW
        helped = torch.zeros(())
        for asked in self.judging.claims(truth):
            one, two = judging_loss(self.model, self.helper, seen, asked)
            judged, helped = judged + one / 2, helped + two / 2
        (SAID * said + JUDGED * judged + help_ * helped).backward()
        self.stepper.step(rate)
        return said.detach(), judged.detach(), helped.detach()

    def measure(self) -> tuple[float, str]:
        """How good the model is on held-out scenes, as one number and in words."""
        seen = torch.cat([network.see(self.model, part)[0] for part in self.pixels])
        words, total = [], 0.0
        for right in self.lessons.recited(self.model, seen, self.truth):
            total += right.float().mean().item()
            by = [right[self.truth.count == n].float().mean().item() for n in (1, 2, 3)]
            words.append(" ".join(f"{100 * share:.1f}" for share in by))
        yes, no = self.judging.answers[[1, 0], 0]
        for asked in self.questions:
            logits = network.answer_logits(self.model, seen[asked.rows], asked.batch)[:, 0].float()
            area = auc(logits[:, yes] - logits[:, no], asked.batch.answers[:, 0] == yes)
            total += area
            words.append(f"{area:.4f}")
        return total, ", ".join(words)

    def export(self, folder: Path) -> None:
        """Writes the start's files with the weights as they are now."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.start.iterdir():
            if path.name not in (WEIGHTS, "README.md"):
                shutil.copyfile(path, folder / path.name)
        now = self.model.state_dict()
        weights = {name: now[name].to("cpu", torch.bfloat16) for name in self.weights}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)


def run(tuner: Tuner, args: argparse.Namespace, begin: float) -> None:
    """Trains until the time or the steps are used up; the best model is exported as it comes."""
    start, step, progress, reported, best = time.monotonic(), 0, 0.0, 0.0, 0.0
    left = args.seconds - (start - begin)
    while progress < 1:
        rate = args.rate * min(1.0, (step + 1) / args.warm, 0.01 + (1 - progress) / 0.8)
        losses = tuner.step(rate, 1 - progress)
        step += 1
        now = time.monotonic()
        progress = max(step / args.steps, (now - start) / left)
        if step in (1, 20) or now - reported > args.report or progress >= 1:
            reported = now
            with torch.no_grad():
                good, words = tuner.measure()
            shown = " ".join(f"{loss.item():.4f}" for loss in losses)
            print(
                f"{step} steps, {now - begin:.0f} s, losses {shown}, held out {words}", flush=True
            )
            if good > best:
                best = good
                tuner.export(args.out)
    print(f"{step} steps in {time.monotonic() - start:.0f} s", flush=True)


def arguments(values: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="recaption.tiny.judge", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the model's files")
    add("--drawn", type=Path, required=True, help="folder of real scenes (recaption.tiny.data)")
    start = Path(__file__).with_name("model")
    add("--start", type=Path, default=start, help="the model to start from")
    add("--seconds", type=float, default=420, help="time until the model is exported")
    add("--steps", type=int, default=10**9, help="most steps, should they come first")
    add("--warm", type=int, default=200, help="steps until the learning rate is at its peak")
    add("--batch", type=int, default=1024)
    add("--rate", type=float, default=1.5e-3, help="peak learning rate")
    add("--scenes", type=int, default=80_000, help="most real scenes")
    add("--held", type=int, default=HELD, help="real scenes never trained on")
    add("--prompts", type=int, default=10_000, help="different other prompts")
    add("--report", type=float, default=30, help="seconds between reports")
    add("--seed", type=int, default=1)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(values)


def main(values: list[str] | None = None) -> int:
    """Trains, measures and exports."""
    begin = time.monotonic()
    args = arguments(values)
    torch.set_default_device(args.device)
    run(Tuner(args), args, begin)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
