"""Shards of synthetic photographs, with textures as costly to decode as real ones.

No two pictures are the same, or a server's caches would answer instead of its engine.
"""

from __future__ import annotations

import io
import os
import tarfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

TEXTURES = 64
QUALITY = 90
FEW = 4096  # megabytes of pixels up to which pictures are drawn in this process


def make_shards(
    folder: Path, *, shards: int, samples: int, size: tuple[int, int], first: int = 0
) -> list[Path]:
    """Write `shards` tars of `samples` JPEGs of `size` (width, height); reused where they exist.

    `first` is the number of the first picture: sets that do not overlap share no picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{size[0]}x{size[1]}-{samples}-{first}"
    paths = [folder / f"{name}-{shard:05d}.tar" for shard in range(shards)]
    missing = [
        (path, first + shard * samples) for shard, path in enumerate(paths) if not path.exists()
    ]
    write = partial(_write, samples=samples, size=size)
    processes = min(len(missing), len(os.sched_getaffinity(0)))
    if processes <= 1 or len(missing) * samples * size[0] * size[1] < FEW << 16:
        for job in missing:
            write(job)
    else:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            list(pool.map(write, missing))
    return paths


def _write(job: tuple[Path, int], samples: int, size: tuple[int, int]) -> None:
    path, first = job
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for number in range(first, first + samples):
            picture = _picture(number, size)
            info = tarfile.TarInfo(f"{number:09d}.jpg")
            info.size = len(picture)
            tar.addfile(info, io.BytesIO(picture))
    path.write_bytes(content.getbuffer())


def _picture(number: int, size: tuple[int, int]) -> bytes:
    """A texture moved by an offset of the picture's own."""
    turn, texture = divmod(number, TEXTURES)
    moved = np.roll(_texture(texture, size), (5 * turn, 7 * turn), axis=(0, 1))
    out = io.BytesIO()
    PIL.Image.fromarray(moved).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


@cache
def _texture(seed: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise at several scales, like a photograph's: detail at every size, less of it when fine."""
    rng = np.random.default_rng(seed)
    width, height = size
    total = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((4, 90.0), (16, 45.0), (64, 22.0), (256, 10.0)):
        shape = (max(2, cells * height // width), cells, 3)
        coarse = PIL.Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        smooth = coarse.resize(size, PIL.Image.Resampling.BICUBIC)
        total += weight * (np.asarray(smooth, np.float32) / 127.5 - 1.0)
    return np.clip(total + 127.5, 0, 255).astype(np.uint8)
