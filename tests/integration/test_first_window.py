"""What waits for an engine that takes long to start."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import launched

SLOW_START = """
import asyncio
from recaption.engine.fake import FakeEngine
started = FakeEngine.start
async def start(self):
    await asyncio.sleep(12)
    return await started(self)
FakeEngine.start = start
"""


def test_the_first_window_is_prepared_before_the_engine_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that an engine takes at once waits for it in shared memory."""
    write_shards(tmp_path / "in", 2, 40, side=96)
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(SLOW_START)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"), prepend=os.pathsep)
    words = ("engine=fake", "engine.max_num_seqs=40", "engine.waiting=8", "output.dir=run")
    launched("data.shards=in/*.tar", *words, cwd=tmp_path, timeout=120)
    (log,) = (tmp_path / "run/.recaption/tasks").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    before = [e for e in events if e["event"] == "beat" and e["engine_seconds"] == 0]
    assert max(e["ready"] for e in before) >= 48
