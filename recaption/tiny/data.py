"""Real drawn and encoded scenes, as files of a few hundred pictures with their truth."""

from __future__ import annotations

import argparse
import io
import multiprocessing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recaption.run import publish

from .scenes import COLOR_NAMES, SHAPE_NAMES, SIZES, Scene, draw_scene, encode

CHUNK = 500
MOST = 3  # shapes in a scene


def squeeze(data: bytes, side: int) -> NDArray[np.uint8]:
    """An encoded picture as the processor's resize leaves it, channels first."""
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1)


def truth(scene: Scene) -> NDArray[np.float32]:
    """Shape, colour, size, x and y of each shape (-1: none), then the background's colour."""
    out = np.full(5 * MOST + 1, -1, np.float32)
    for i, s in enumerate(scene.shapes):
        names = SHAPE_NAMES.index(s.name), COLOR_NAMES.index(s.color), SIZES.index(s.size)
        out[5 * i : 5 * i + 5] = (*names, s.x, s.y)
    out[-1] = COLOR_NAMES.index(scene.background)
    return out


def draw_chunk(
    rng: np.random.Generator, side: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pictures (count, 3, side, side) and their truth (count, 16)."""
    pictures = np.empty((count, 3, side, side), np.uint8)
    truths = np.empty((count, 5 * MOST + 1), np.float32)
    for i in range(count):
        scene = draw_scene(rng)
        pictures[i] = squeeze(encode(scene.image, rng)[0], side)
        truths[i] = truth(scene)
    return pictures, truths


def write_chunk(job: tuple[Path, int, int, int]) -> None:
    """Writes one file of scenes, unless it is there."""
    folder, seed, number, side = job
    name = folder / f"{seed:03d}-{number:05d}.npz"
    if name.exists():
        return
    pictures, truths = draw_chunk(np.random.default_rng((seed, number)), side, CHUNK)
    chunk = io.BytesIO()
    np.savez(chunk, pictures=pictures, truths=truths)
    publish.replace(name, chunk.getvalue(), name.with_suffix(".part"))


def write(folder: Path, count: int, side: int, seed: int, workers: int) -> None:
    """Draws at least so many scenes in parallel processes; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, seed, i, side) for i in range(-(-count // CHUNK))]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(write_chunk, jobs, chunksize=1)


def load(folder: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The first `count` scenes of a folder (fewer where it holds fewer)."""
    pictures, truths = [], []
    for path in sorted(folder.glob("*.npz"))[: -(-count // CHUNK)]:
        with np.load(path) as arrays:
            pictures.append(arrays["pictures"])
            truths.append(arrays["truths"])
    return np.concatenate(pictures), np.concatenate(truths)


def main() -> int:
    """The command line: draws scenes before the training."""
    parser = argparse.ArgumentParser(prog="recaption.tiny.data", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=40_000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    write(args.folder, args.scenes, args.side, args.seed, args.workers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
