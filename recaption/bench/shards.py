"""Shards of synthetic photographs: textured, so that JPEG and the decoder have real work."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image

DISTINCT = 64
QUALITY = 90


def make_shards(folder: Path, *, shards: int, samples: int, size: tuple[int, int]) -> list[Path]:
    """Write `shards` tars of `samples` JPEGs of `size` (width, height); reused where they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: list[bytes] = []
    made = []
    for shard in range(shards):
        path = folder / f"{size[0]}x{size[1]}-{samples}-{shard:05d}.tar"
        made.append(path)
        if path.exists():
            continue
        pictures = pictures or [_picture(n, size) for n in range(DISTINCT)]
        temporary = io.BytesIO()
        with tarfile.open(fileobj=temporary, mode="w") as tar:
            for i in range(samples):
                content = pictures[(shard * samples + i) % DISTINCT]
                info = tarfile.TarInfo(f"{shard:05d}{i:06d}.jpg")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        path.write_bytes(temporary.getbuffer())
    return made


def _picture(seed: int, size: tuple[int, int]) -> bytes:
    """Noise at several scales, like a photograph's: detail at every size, less of it when fine."""
    rng = np.random.default_rng(seed)
    width, height = size
    total = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((4, 90.0), (16, 45.0), (64, 22.0), (256, 10.0)):
        shape = (max(2, cells * height // width), cells, 3)
        coarse = PIL.Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        smooth = coarse.resize(size, PIL.Image.Resampling.BICUBIC)
        total += weight * (np.asarray(smooth, np.float32) / 127.5 - 1.0)
    pixels = np.clip(total + 127.5, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
