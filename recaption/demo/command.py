"""recaption.demo: draws four small shards and recaptions them with the tiny model, on this machine."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from argparse import Namespace
from pathlib import Path

import numpy as np

from recaption.cli.arguments import split_words
from recaption.errors import UserError
from recaption.launch import main as launch
from recaption.run.record import open_run
from recaption.run.rows import read_rows
from recaption.run.scan import scan
from recaption.tiny.scenes import caption_short, draw_scene, encode

SHARDS = 4
SAMPLES = 64
OLD = "untitled picture"


def demo(options: Namespace) -> int:
    """Draw, launch, and show the captions; run again, it only shows them."""
    places, words = split_words(options.folder, *options.words)
    if len(places) > 1:
        raise UserError(f"demo: needs one folder, given: {', '.join(places)} (see --help)")
    folder = Path(places[0] if places else "demo").absolute()
    truth = draw_shards(folder / "shards")
    output = folder / "recaptioned"
    fixed = [
        f"data.shards={folder / 'shards' / f'{{00000..{SHARDS - 1:05d}}}.tar'}",
        f"output.dir={output}",
    ]
    code = launch([*fixed, "sampling.max_tokens=48", *words])
    _show(output, truth)
    return code


def draw_shards(folder: Path) -> dict[str, str]:
    """Draw the sample shards where they are missing; returns what each key shows."""
    folder.mkdir(parents=True, exist_ok=True)
    truth_file = folder / "truth.json"
    if truth_file.exists():
        found: dict[str, str] = json.loads(truth_file.read_text())
        return found
    rng = np.random.default_rng(2024)
    truth: dict[str, str] = {}
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(SAMPLES):
                scene = draw_scene(rng)
                content, extension = encode(scene.image, rng)
                key = f"{shard:05d}{i:04d}"
                truth[key] = caption_short(scene)
                _add(tar, f"{key}.{extension}", content)
                _add(tar, f"{key}.txt", OLD.encode())
    truth_file.write_text(json.dumps(truth))
    return truth


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _show(output: Path, truth: dict[str, str]) -> None:
    paths, run = open_run(output)
    state = scan(paths, run)
    print(f"\n{'shard':12} {'samples':>7} {'captioned':>9} {'as drawn':>8}   an example")
    for shard in run.shards:
        counts = state.done.get(shard.name)
        if counts is None:
            print(f"{shard.name:12} not published", file=sys.stderr)
            continue
        rows = read_rows(paths.sidecar(shard.name))
        right = sum(row["caption"] == truth[row["key"]] for row in rows)
        example = f"{rows[0]['key']}: {rows[0]['caption']}"
        if rows[0]["watermark_score"] is not None:
            example += f" (watermark {rows[0]['watermark_score']:.2f})"
        print(f"{shard.name:12} {len(rows):7} {counts['captioned']:9} {right:8}   {example}")
    print(f"\nshards with captions  {paths.root}/*.tar")
    print(f"one row per sample    {paths.markers}/*.parquet")
    print(f"dataset card          {paths.card}")
