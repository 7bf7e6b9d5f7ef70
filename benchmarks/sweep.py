"""Models and engine settings against each other on one GPU, by what `recaption.bench` measures.

    python benchmarks/sweep.py 'NAME: KEY=VALUE …' … [--at-once 3] [--json LINES]

Beside the launcher's keys a setting may have `size=640x480`, `images=1000`, `parts=engine` (of engine,
pipeline and baseline, joined by commas) and environment variables in upper case. Engines start
together, `--at-once` of them on the GPU that they share, and are measured in the order given, each while
the others are idle: starting takes longer than measuring. So that they fit, and do not count each
other's memory as their own, give each `model.engine.kv_cache_memory_bytes=…` and a small
`engine.gpu_memory_utilization`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from recaption.bench.command import figures_of
from recaption.bench.ours import Ours
from recaption.bench.shards import make_shards
from recaption.config import overrides
from recaption.config.compose import compose_config, to_config

COMMON = [
    "data.name=sweep",
    "prompt=detailed",
    "sampling.max_tokens=120",
    "sampling.ignore_eos=true",
]
DEFAULTS = {"size": "640x480", "images": "1000", "parts": "engine"}
PATIENCE = 300
SHARDS = 8


def measure(name: str, words: list[str], folder: Path, lines: str, barrier: Any, turn: Any) -> None:
    """One setting, in a process of its own; appends its figures to the file `lines`."""
    given = dict(word.split("=", 1) for word in words)
    os.environ.update({key: value for key, value in given.items() if key.isupper()})
    own = DEFAULTS | {key: value for key, value in given.items() if key in DEFAULTS}
    keys = [w for w in words if w.split("=")[0] not in own and not w.split("=")[0].isupper()]
    images = int(own["images"])
    width, height = map(int, own["size"].split("x"))
    shards = make_shards(
        folder / "in", shards=SHARDS, samples=images // SHARDS, size=(width, height)
    )
    where = [f"data.shards=[{','.join(map(str, shards))}]"]
    common = [word for word in COMMON if word.split("=")[0] not in given]
    config = to_config(compose_config(overrides.prepare([*where, *common, *keys])))
    try:
        ours = Ours(config, [config.prompt], folder / "out")
    except BaseException:
        barrier.abort()
        raise
    try:
        barrier.wait(PATIENCE)
    except threading.BrokenBarrierError:
        print(f"{name}: measured without waiting for the others", flush=True)
    turn.wait()
    result = figures_of(ours, own["parts"].split(","), images, (width, height), images // 3)
    result |= {"name": name, **own}
    print(json.dumps(result), flush=True)
    with open(lines, "a") as file:
        file.write(json.dumps(result) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="+", metavar="'NAME: WORD …'")
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--json", default=os.devnull, help="a line of JSON for each setting")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        for start in range(0, len(options.settings), options.at_once):
            group = options.settings[start : start + options.at_once]
            barrier: Barrier = spawn.Barrier(len(group))
            turns = [spawn.Event() for _ in group]
            processes = []
            for setting, turn in zip(group, turns, strict=True):
                name, _, words = setting.partition(":")
                arguments = (name, words.split(), Path(scratch, name), options.json, barrier, turn)
                processes.append(spawn.Process(target=measure, args=arguments))
            for process in processes:
                process.start()
            for process, turn in zip(processes, turns, strict=True):
                turn.set()
                process.join()


if __name__ == "__main__":
    main()
