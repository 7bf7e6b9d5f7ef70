"""Measures a trained model from encoded pictures, as a user would run it.

`python -m recaption.tiny.evaluate MODEL` prints the table of the model card.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import otherstyle, scenes
from .scenes import Scene, Shape

THING = re.compile(r"a (\w+) (\w+) (\w+) at the (\w+ \w+)")
METRICS = ("short", "detailed", "s+c short", "s+c detailed", "place", "size", "background")


@dataclass(frozen=True)
class Group:
    """One row of the table: how its scenes are drawn."""

    name: str
    count: int
    kind: str = "plain"


@dataclass
class Row:
    """Shares of the scenes of one group that were described rightly."""

    name: str
    number: int
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """An encoded picture and its truth."""

    data: bytes
    shapes: tuple[Shape, ...]
    background: str

    @property
    def scene(self) -> Scene:
        """The truth as a scene, for its captions."""
        return Scene(Image.new("RGB", (1, 1)), self.shapes, self.background)


def groups() -> list[Group]:
    """The rows of the table."""
    names = {"long": "aspect above 2", "small": "only small shapes", "q80": "JPEG 80, 4:2:0"}
    plain = [Group(f"{n} shape{'s' * (n > 1)}", n) for n in (1, 2, 3)]
    parts = [Group(f"{names[k]}, {n}", n, k) for k in names for n in (1, 3)]
    return plain + parts + [Group(f"other drawing code, {n}", n, "other") for n in (1, 2, 3)]


def draw(job: tuple[Group, int, int]) -> list[Drawn]:
    """Draws some scenes of a group."""
    group, number, seed = job
    rng = np.random.default_rng((987_654, seed))
    out = []
    for _ in range(number):
        if group.kind == "other":
            scene = otherstyle.draw(rng, group.count)
        elif group.kind == "long":
            short = int(rng.integers(96, 300))
            long = int(short * rng.uniform(2, 3))
            size = (long, short) if rng.random() < 0.5 else (short, long)
            scene = scenes.draw_scene(rng, group.count, size)
        else:
            scene = scenes.draw_scene(rng, group.count, small=group.kind == "small" or None)
        if group.kind == "q80":
            file = io.BytesIO()
            scene.image.save(file, "JPEG", quality=80, subsampling=2)
            data = file.getvalue()
        else:
            data = scenes.encode(scene.image, rng)[0]
        out.append(Drawn(data, scene.shapes, scene.background))
    return out


def draw_all(number: int, workers: int) -> list[tuple[Group, list[Drawn]]]:
    """Fresh scenes for every group; the plain groups get `number`, the others a quarter."""
    jobs = []
    for index, group in enumerate(groups()):
        left, part = (number if group.kind == "plain" else max(1, number // 4)), 0
        while left > 0:
            jobs.append((group, min(25, left), 10_000 * index + part))
            left, part = left - 25, part + 1
    found: dict[Group, list[Drawn]] = {}
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for (group, _, _), drawn in zip(jobs, pool.map(draw, jobs, chunksize=1), strict=True):
            found.setdefault(group, []).extend(drawn)
    return list(found.items())


class Captioner:
    """A model with its processor, as anyone would load them."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
        self.model: Any = loaded.to(self.device).eval()

    def see(self, pictures: Sequence[bytes]) -> dict[str, Any]:
        """Encoded pictures as the model takes them."""
        import torch

        images = [[Image.open(io.BytesIO(data)).convert("RGB")] for data in pictures]
        text = ["<image>"] * len(images)
        inputs = self.processor(images=images, text=text, return_tensors="pt")
        pixels = {k: v.to(self.device) for k, v in inputs.items() if k.startswith("pixel")}
        return {**pixels, "pixel_values": pixels["pixel_values"].to(torch.bfloat16)}

    def caption(self, pictures: Sequence[bytes], prompts: Sequence[str]) -> list[list[str]]:
        """A caption of each picture for each prompt, greedily; a list for each prompt."""
        import torch

        out: list[list[str]] = [[] for _ in prompts]
        for start in range(0, len(pictures), 500):
            part = pictures[start : start + 500]
            pixels = self.see(part)
            image = Image.open(io.BytesIO(part[0])).convert("RGB")
            for captions, prompt in zip(out, prompts, strict=True):
                content = [{"type": "image"}, {"type": "text", "text": prompt}]
                chat = [{"role": "user", "content": content}]
                text = self.processor.apply_chat_template(chat, add_generation_prompt=True)
                one = self.processor(images=[[image]], text=[text], return_tensors="pt")
                names = ("input_ids", "attention_mask")
                tokens = {k: one[k].repeat(len(part), 1).to(self.device) for k in names}
                with torch.no_grad():
                    made = self.model.generate(**pixels, **tokens, max_new_tokens=60)
                made = made[:, tokens["input_ids"].shape[1] :]
                captions += self.processor.batch_decode(made, skip_special_tokens=True)
        return out


def score(
    drawn: Sequence[Drawn], short: Sequence[str], detailed: Sequence[str]
) -> dict[str, float]:
    """The share of scenes that are right, by metric."""
    right = dict.fromkeys(METRICS, 0)
    for truth, one, two in zip(drawn, short, detailed, strict=True):
        things = [m.groups() for m in THING.finditer(two)]
        pairs = [(s.color, s.name) for s in truth.shapes]
        said = [tuple(part.split(" ")[1:]) for part in one.split(" and ")]
        right["short"] += one == scenes.caption_short(truth.scene)
        right["detailed"] += two == scenes.caption_detailed(truth.scene)
        right["s+c short"] += said == pairs
        right["s+c detailed"] += [(c, n) for _, c, n, _ in things] == pairs
        right["place"] += [p for *_, p in things] == [s.place for s in truth.shapes]
        right["size"] += [z for z, *_ in things] == [s.size for s in truth.shapes]
        right["background"] += two.endswith(f", on a {truth.background} background")
    return {name: value / len(drawn) for name, value in right.items()}


def evaluate(folder: Path, number: int, workers: int, device: str | None = None) -> list[Row]:
    """All rows of the table, printed as they come."""
    from .text import PROMPT_DETAILED, PROMPT_SHORT

    sets = draw_all(number, workers)
    captioner = Captioner(folder, device)
    rows = []
    print("processor:", type(captioner.processor.image_processor).__name__, flush=True)
    for group, drawn in sets:
        pictures = [d.data for d in drawn]
        short, detailed = captioner.caption(pictures, (PROMPT_SHORT, PROMPT_DETAILED))
        rows.append(Row(group.name, len(drawn), score(drawn, short, detailed)))
        print(line(rows[-1]), flush=True)
    return rows


def line(row: Row) -> str:
    """A row in Markdown."""
    cells = [f"{100 * row.shares[name]:.1f}" for name in METRICS]
    return f"| {row.name} | {row.number:,} | {' | '.join(cells)} |"


def table(rows: Sequence[Row]) -> str:
    """The whole table in Markdown."""
    head = ["| scenes | number | " + " | ".join(METRICS) + " |", "| --- " * 9 + "|"]
    return "\n".join([*head, *map(line, rows)])


def write_card(folder: Path, rows: Sequence[Row], summary: dict[str, str]) -> None:
    """Writes the model card from its template."""
    card = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    for name, value in {**summary, "table": table(rows)}.items():
        card = card.replace("{" + name + "}", value)
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="recaption.tiny.evaluate", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--scenes", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default=None)
    args = parser.parse_args()
    evaluate(args.model, args.scenes, args.workers, args.device)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
