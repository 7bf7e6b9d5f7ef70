"""Draws training scenes in parallel processes, as files of a few thousand at a time."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from .scenes import (
    Scene,
    Shape,
    caption_detailed,
    caption_short,
    draw_scene,
    encode,
)

CHUNK = 1000
ANSWER = 36  # tokens of the longest caption (32), its end included


def squeeze(data: bytes, side: int) -> NDArray[np.uint8]:
    """An encoded picture as the processor's resize leaves it."""
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(small)


def mirrored(scene: Scene) -> Scene:
    """The same scene seen in a mirror (its picture is left alone)."""
    shapes = [Shape(s.name, s.color, s.size, 1 - s.x, s.y) for s in reversed(scene.shapes)]
    return Scene(scene.image, tuple(shapes), scene.background)


def captions(scene: Scene) -> list[str]:
    """Short, detailed, and both once more for the mirrored picture."""
    other = mirrored(scene)
    return [
        caption_short(scene),
        caption_detailed(scene),
        caption_short(other),
        caption_detailed(other),
    ]


def draw_chunk(
    rng: np.random.Generator, tokenizer: Tokenizer, side: int, end: int, count: int = CHUNK
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Pictures (count, side, side, 3) and the tokens of their captions (count, 4, ANSWER)."""
    pictures = np.empty((count, side, side, 3), np.uint8)
    texts = []
    for i in range(count):
        scene = draw_scene(rng)
        pictures[i] = squeeze(encode(scene.image, rng)[0], side)
        texts += captions(scene)
    tokens = np.full((4 * count, ANSWER), -1, np.int16)
    for row, coded in zip(tokens, tokenizer.encode_batch(texts), strict=True):
        ids = [*coded.ids, end]
        row[: len(ids)] = ids
    return pictures, tokens.reshape(count, 4, ANSWER)


def _work(folder: str, number: int, seed: int, tokenizer: str, side: int, end: int) -> None:
    """One process: writes chunk after chunk until it is stopped or its parent is gone."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(5)
    parent = os.getppid()
    coder = Tokenizer.from_str(tokenizer)
    rng = np.random.default_rng((seed, number))
    part = 0
    while os.getppid() == parent:
        pictures, tokens = draw_chunk(rng, coder, side, end, CHUNK if part else CHUNK // 4)
        name = Path(folder) / f"{number:03d}-{part:05d}.npz"
        with open(name.with_suffix(".part"), "wb") as file:
            np.savez(file, pictures=pictures, tokens=tokens)
        os.replace(name.with_suffix(".part"), name)
        part += 1


def start(
    folder: Path, workers: int, seed: int, tokenizer: str, side: int, end: int
) -> list[BaseProcess]:
    """Starts the drawing processes; they write `*.npz` into the folder until terminated."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    for number in range(workers):
        arguments = (str(folder), number, seed, tokenizer, side, end)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        processes.append(process)
    return processes


def collect(folder: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int16]]]:
    """The chunks that are there now; each is removed once read."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            yield arrays["pictures"], arrays["tokens"]
        path.unlink()
