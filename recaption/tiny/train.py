"""Trains the tiny model: `python -m recaption.tiny.train --out DIR`."""

from __future__ import annotations

import argparse
import ctypes
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import data, evaluate, heads, model, network, optim, prompts, sketch
from .truth import Captions, Truth, from_table, mirrored

TOLD = 3  # one scene in so many is captioned too, with both prompts
OTHER = 8  # one captioned scene in so many also gets another prompt
HELD = 500  # real scenes never trained on


class Trainer:
    """The model in training, and the sources of its batches."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        torch.manual_seed(args.seed)
        self.args, self.size = args, model.SIZES[args.size]
        self.processor = model.build_processor(self.size)
        self.captions = Captions(self.processor.tokenizer)
        self.model = model.build_model(self.size)
        self.model.set_attn_implementation(network.ATTENTION)
        self.sketches = sketch.Sketches(args.batch, self.size.image, args.compile)
        some = torch.cat([self.sketches.next()[0] for _ in range(8)])
        optim.initialize(self.model, self.size, some)
        self.heads = heads.build_heads(self.size)
        self.stepper = optim.Stepper(self.model, self.heads, args.rate)
        if args.start:
            self.stepper.load(torch.load(args.start))
        self.plain = [prompts.plain(self.processor, self.size, kind) for kind in (0, 1)]
        self.others = prompts.others(self.processor, self.size, args.prompts)
        pictures, table = data.load(folder, args.scenes)
        self.pictures, self.truth = torch.from_numpy(pictures), from_table(torch.from_numpy(table))
        self.looking: Any = network.looking_loss
        if args.compile:
            self.looking = torch.compile(self.looking, dynamic=False)

    def scenes(self, real: bool) -> tuple[Tensor, Truth, Tensor]:
        """A batch: pixels, truth, and the patches' labels of its sketches."""
        pixels, plan = self.sketches.next()
        labels = heads.patch_labels(plan, self.size.image // self.size.patch)
        if not real:
            return pixels, plan.truth, labels
        half = self.args.batch // 2
        rows = torch.randint(HELD, len(self.pictures), (half,))
        flip = torch.rand(half) < 0.5
        drawn = self.pictures[rows]
        drawn = torch.where(flip[:, None, None, None], drawn.flip(3), drawn)
        truth = mirrored(self.truth.take(rows), flip)
        both = Truth(*(torch.cat([p[:half], q]) for p, q in zip(plan.truth, truth, strict=True)))
        pixels = torch.cat([pixels[:half], drawn])
        return pixels, both, labels[:half]

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

    def step(self, progress: float, rate: float) -> Tensor:
        """One step; gives the last part of the loss."""
        read = progress >= self.args.look
        pixels, truth, labels = self.scenes(read)
        loss, seen = self.looking(self.model, self.heads, pixels, truth, labels)
        shown = loss
        if read:
            few = len(seen) // TOLD
            start = (len(seen) - few) // 2  # sketches meet real scenes in the middle
            told = torch.arange(start, start + few)
            shown = network.reading_loss(self.model, seen[told], self.batches(truth.take(told)))
            loss = 2 * shown + (0.5 - 0.4 * progress) * loss
        loss.backward()
        self.stepper.step(rate)
        return shown.detach()

    def held_out(self, read: bool) -> str:
        """Shares of real held-out scenes that are right in all, by the number of shapes."""
        truth = Truth(*(part[:HELD] for part in self.truth))
        seen, _ = network.see(self.model, self.pictures[:HELD])
        loss, right = heads.token_loss(self.heads, seen, truth)
        parts = [f"helpers {loss:.3f} {100 * right.float().mean():.1f}"]
        answers = (self.captions.short(truth), self.captions.detailed(truth)) if read else ()
        for prompt, answer in zip(self.plain, answers, strict=False):
            logits = network.answer_logits(self.model, seen, network.assemble(prompt, answer))
            good = ((logits.argmax(-1) == answer) | (answer < 0)).all(1).float()
            by = [f"{100 * good[truth.count == n].mean():.1f}" for n in (1, 2, 3)]
            parts.append(" ".join(by))
        return ", ".join(parts)


def run(trainer: Trainer, begin: float) -> dict[str, str]:
    """Trains until the time or the steps are used up; gives a summary for the card."""
    args = trainer.args
    start, step, progress, said = time.monotonic(), 0, 0.0, 0.0
    while progress < 1:
        fall = min(1.0, (1 - progress) / 0.7)
        shown = trainer.step(
            progress, args.rate * min(1.0, (step + 1) / args.warm) * (0.01 + 0.99 * fall)
        )
        step += 1
        now = time.monotonic()
        if step in (1, 5, 20) or now - said > args.report:
            said = now
            with torch.no_grad():
                held = trainer.held_out(progress >= args.look)
            print(
                f"{step} steps, {now - begin:.0f} s, {progress:.3f}, loss {shown.item():.4f}, "
                f"held out: {held}",
                flush=True,
            )
            if args.state:
                torch.save(trainer.stepper.masters, args.state)
        progress = max(step / args.steps, (time.monotonic() - start) / args.seconds)
    return {
        "parameters": f"{sum(p.numel() for p in trainer.model.parameters()):,}",
        "steps": f"{step:,}",
        "batch": str(args.batch),
        "scenes": f"{len(trainer.pictures) - HELD:,}",
        "machine": f"{torch.get_num_threads()} CPU cores",
        "minutes": f"{(time.monotonic() - start) / 60:.1f}",
    }


def arguments(values: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="recaption.tiny.train", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the model's files")
    add("--size", default="tiny", help="variant, see recaption.tiny.model.SIZES")
    add("--seconds", type=float, default=3000, help="time for training")
    add("--look", type=float, default=0.5, help="share of the time for the vision part alone")
    add("--warm", type=int, default=200, help="steps until the learning rate is at its peak")
    add("--steps", type=int, default=10**9, help="most steps, should they come first")
    add("--batch", type=int, default=128)
    add("--rate", type=float, default=2e-3, help="peak learning rate")
    add("--drawn", type=Path, help="folder of real scenes (recaption.tiny.data), drawn if missing")
    add("--scenes", type=int, default=60_000, help="most real scenes")
    add("--workers", type=int, default=2, help="drawing processes")
    add("--prompts", type=int, default=10_000, help="different other prompts")
    add("--evaluate", type=int, default=2_000, help="scenes for each row of the evaluation")
    add("--report", type=float, default=60, help="seconds between reports")
    add("--state", type=Path, help="file to keep the fp32 weights in, at each report")
    add("--start", type=Path, help="such a file to start from")
    add("--seed", type=int, default=1)
    add("--no-compile", dest="compile", action="store_false")
    return parser.parse_args(values)


def keep_memory() -> None:
    """Has the C library reuse large blocks; fresh ones from the system cost more than the work."""
    library: Any = ctypes.CDLL(None)
    for option, value in ((-1, 2**31 - 1), (-2, 2**28), (-4, 0)):  # trim, pad, mmap
        library.mallopt(option, value)


def main(values: list[str] | None = None) -> int:
    """Draws, trains, exports, evaluates, and writes the model card."""
    begin = time.monotonic()
    args = arguments(values)
    keep_memory()
    with tempfile.TemporaryDirectory(prefix="scenes-") as scratch:
        folder = args.drawn or Path(scratch)
        if args.drawn is None or not args.drawn.exists():
            data.write(folder, args.scenes, model.SIZES[args.size].image, args.seed, args.workers)
        trainer = Trainer(args, folder)
    summary = run(trainer, begin)
    model.export(trainer.model, trainer.processor, args.out)
    print(f"exported after {time.monotonic() - begin:.0f} s", flush=True)
    rows = evaluate.evaluate(args.out, args.evaluate, args.workers)
    evaluate.write_card(args.out, rows, summary)
    print(f"done after {time.monotonic() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
