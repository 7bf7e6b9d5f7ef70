"""Finished runs of any size, as tasks leave them, without tars."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from recaption.config.schema import Prompt
from recaption.run.columns import Columns
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run, Submission, write_run, write_submission
from recaption.run.rows import write_rows
from recaption.run.tasklog import TaskLog

SCORES = ("watermark_score",)
IDENTITY = {
    "output.mode": "full",
    "data.image_keys": ["jpg"],
    "data.caption_key": "caption",
    "data.damaged": "fail",
    "output.text": "replace",
    "watermark": "onnx",
    "scorers": [],
    "engine": "fake",
}


def make_run(root: Path, shards: int, samples: int) -> RunPaths:
    """A finished run as tasks leave it, without tars: sidecars, markers and a log."""
    paths = RunPaths(root)
    root.mkdir()
    for folder in paths.folders():
        folder.mkdir()
    inputs = [InputShard(f"{root}/in/{i:06d}.tar", f"{i:06d}.tar", 1000) for i in range(shards)]
    prompt = Prompt(name="p", text="What is this?")
    write_run(paths, Run("f" * 64, IDENTITY, [prompt], {"name": "m"}, inputs, {}, time.time()), "t")
    every = list(range(shards))
    config = {"image": {"decode_seconds": 30.0, "decode_mb": 512}, "slurm": {"kind": "local"}}
    write_submission(paths, Submission(0, config, every, [every], time.time()), "t")
    log = TaskLog(paths.task_log(0, 0, "a"))
    log.write("start", node="n", pid=1, engines=1, workers=1)
    first = root / "first.parquet"
    for number, shard in enumerate(inputs):
        if number < 8:
            write_rows(
                first,
                [made_row(number, i, samples) for i in range(samples)],
                Columns(("p",), SCORES),
            )
        paths.sidecar(shard.name).write_bytes(first.read_bytes())
        paths.marker(shard.name).write_text("unread")
        counts = {"captioned": samples, "filtered": 0, "rejected": 0, "failed": 0}
        log.write("published", shard=shard.name, counts=counts, won=True)
    log.close()
    first.unlink()
    return paths


def made_row(shard: int, i: int, samples: int) -> dict[str, Any]:
    return {
        "key": f"s{shard}_{i:04d}",
        "index": i,
        "status": "captioned",
        "reason": "",
        "caption": "word " * (i % 9 + 1),
        "caption_original": "old",
        "finish_reason": "stop",
        "tokens": i % 9 + 1,
        "flags": "truncated" if i % 10 == 0 else "",
        "watermark_score": (shard * samples + i) / 100 % 1.0,
        "width": 10,
        "height": 10,
        "tries": 1,
        "strikes": 0,
        "attempt": "a",
        "attempts": "",
    }
