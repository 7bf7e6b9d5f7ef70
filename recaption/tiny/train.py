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

from . import data, evaluate, heads, lessons, model, network, optim, sketch

TOLD = 3  # one scene in so many is captioned too, with both prompts


class Trainer:
    """The model in training, and the sources of its batches."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        torch.manual_seed(args.seed)
        self.args, self.size = args, model.SIZES[args.size]
        self.processor = model.build_processor(self.size)
        self.model = model.build_model(self.size)
        self.model.set_attn_implementation(network.ATTENTION)
        sketches = sketch.Sketches(args.batch, self.size.image, args.compile)
        some = torch.cat([sketches.next()[0] for _ in range(8)])
        optim.initialize(self.model, self.size, some)
        self.heads = heads.build_heads(self.size)
        self.stepper = optim.Stepper(self.model, self.heads, args.rate)
        if args.start:
            self.stepper.load(torch.load(args.start))
        self.lessons = lessons.Lessons(self.processor, self.size, sketches, args.prompts)
        self.lessons.load(folder, args.scenes)
        self.looking: Any = network.looking_loss
        if args.compile:
            self.looking = torch.compile(self.looking, dynamic=False)

    def step(self, progress: float, rate: float) -> Tensor:
        """One step; gives the last part of the loss."""
        read = progress >= self.args.look
        pixels, truth, plan = self.lessons.scenes(read)
        labels = heads.patch_labels(plan, self.size.image // self.size.patch)
        labels = labels[: len(pixels) // 2] if read else labels
        loss, seen = self.looking(self.model, self.heads, pixels, truth, labels)
        shown = loss
        if read:
            few = len(seen) // TOLD
            start = (len(seen) - few) // 2  # sketches meet real scenes in the middle
            told = torch.arange(start, start + few)
            batches = self.lessons.batches(truth.take(told))
            shown = network.reading_loss(self.model, seen[told], batches)
            loss = 2 * shown + (0.5 - 0.4 * progress) * loss
        loss.backward()
        self.stepper.step(rate)
        return shown.detach()

    def held_out(self, read: bool) -> str:
        """Shares of real held-out scenes that are right in all, by the number of shapes."""
        pixels, truth = self.lessons.held_out
        seen, _ = network.see(self.model, pixels)
        loss, right = heads.token_loss(self.heads, seen, truth)
        parts = [f"helpers {loss:.3f} {100 * right.float().mean():.1f}"]
        for said in self.lessons.recited(self.model, seen, truth) if read else ():
            shares = [said[truth.count == n].float().mean() for n in (1, 2, 3)]
            parts.append(" ".join(f"{100 * share:.1f}" for share in shares))
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
        "scenes": f"{len(trainer.lessons.pictures) - lessons.HELD:,}",
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
