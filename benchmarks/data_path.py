"""What the data path costs on this machine's cores, without a GPU.

    python benchmarks/data_path.py [--images 2000] [--cores 2]

On the same 640×480 JPEGs, scaled decoding off on all sides:
  ours      tar to published shards with the fake engine
  bare      as many processes as cores that only read, decode and downscale with Pillow
  plain     the baseline's data path (see recaption/bench/baseline.py) with captions for free
Also the pipeline's peak memory over 8 shards and over 64.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import PIL.Image

from recaption.bench.baseline import Saver, samples
from recaption.bench.shards import make_shards
from recaption.prepare.picture import capped

CAP = 262_144  # pixels: every picture has to be scaled down
SIZE = (640, 480)


def ours(shards: list[Path], folder: Path) -> dict[str, float]:
    """Images/s and peak memory of a run in a process of its own, engine start excluded."""
    command = [sys.executable, "-m", "recaption.bench", "--parts", "pipeline", "--json"]
    command += [
        str(folder / "ours.json"),
        "--folder",
        str(folder),
        "--size",
        f"{SIZE[0]}x{SIZE[1]}",
    ]
    command += ["--images", str(len(shards) * per_shard(shards[0])), "--shards", str(len(shards))]
    command += ["engine=fake", f"model.max_pixels={CAP}", "image.draft=false"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    pipeline = json.loads((folder / "ours.json").read_text())["pipeline"]
    return {"rate": pipeline["rate"], "memory": pipeline["details"]["peak_memory_mb"]}


def bare(shards: list[Path], cores: int) -> float:
    """Images/s of processes that read, decode and downscale, and do nothing else."""
    started = time.monotonic()
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        images = sum(pool.map(_decode_shard, shards, chunksize=1))
    return images / (time.monotonic() - started)


def _decode_shard(path: Path) -> int:
    images = 0
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            capped(PIL.Image.open(io.BytesIO(file.read())).convert("RGB"), CAP)
            images += 1
    return images


def fresh_bare(shards: list[Path], cores: int) -> float:
    """As bare(), from an interpreter of its own: what this one did before changes how memory is had."""
    command = [sys.executable, __file__, "--cores", str(cores), "--bare", *map(str, shards)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def plain(shards: list[Path], folder: Path, workers: int) -> float:
    """Images/s of the baseline's data path with an engine that takes no time."""
    saver = Saver(folder / "plain")
    images = 0
    started = time.monotonic()
    for batch in samples([str(p) for p in shards], workers=workers):
        for name, png in batch:
            picture = PIL.Image.open(io.BytesIO(png)).convert("RGB")
            saver.queue.put((f"{images:06d}{name}", picture, "a caption"))
            images += 1
    saver.close()
    return images / (time.monotonic() - started)


def per_shard(path: Path) -> int:
    with tarfile.open(path) as tar:
        return len(tar.getnames())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--bare", nargs="+", metavar="SHARD", help="only the bare loop, on these")
    options = parser.parse_args()
    if options.bare:
        print(bare([Path(word) for word in options.bare], options.cores))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = options.images // 8
        shards = make_shards(folder / "shards", shards=8, samples=each, size=SIZE)
        many = make_shards(folder / "shards", shards=64, samples=each // 2, size=SIZE)
        few = make_shards(folder / "shards", shards=8, samples=each // 2, size=SIZE)
        rates = [
            (fresh_bare(shards, options.cores), ours(shards, folder)["rate"]) for _ in range(3)
        ]
        plain_rate = plain(shards[:2], folder, options.cores)
        memory = ours(few, folder)["memory"], ours(many, folder)["memory"]
    for bare_rate, our_rate in rates:
        print(
            f"bare loop, {options.cores} processes {bare_rate:.1f}, ours, tar to published {our_rate:.1f} "
            f"images/s, ours/bare {our_rate / bare_rate:.3f}"
        )
    middle = statistics.median(our_rate for _, our_rate in rates)
    print(f"ours/bare, median       {statistics.median(o / b for b, o in rates):.3f}")
    print(f"plain data path         {plain_rate:.1f} images/s")
    print(f"ours/plain              {middle / plain_rate:.2f}")
    print(
        f"peak memory 8, 64       {memory[0]:.0f} MB, {memory[1]:.0f} MB, {memory[1] / memory[0]:.3f}"
    )


if __name__ == "__main__":
    main()
