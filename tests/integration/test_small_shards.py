"""Shards with fewer samples than a task's engines have in flight."""

from __future__ import annotations

import json
from pathlib import Path

from drawing import write_shards
from helpers import launched


def test_small_shards_keep_every_engine_full(tmp_path: Path) -> None:
    """Four engines of 20 take 80 samples at a time, which are in 20 shards of four."""
    write_shards(tmp_path / "in", 30, 4, side=96)
    words = ("engine=fake", "engine.replicas=4", "engine.max_num_seqs=20", "engine.waiting=0")
    slow = "engine.rate=4"
    launched("data.shards=in/*.tar", *words, slow, "output.dir=run", cwd=tmp_path, timeout=120)
    (log,) = (tmp_path / "run/.recaption/tasks").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert max(e["flying"] for e in events if e["event"] == "beat") > 40
