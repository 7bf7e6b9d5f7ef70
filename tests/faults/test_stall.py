"""An engine that is silent because its answers are long goes on; one that does nothing is ended."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import launched, markers, rows, started, task_logs, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

LONG = ("sampling.ignore_eos=true", "sampling.max_tokens=440", "engine.stall_seconds=2")


def test_slow_answers_are_no_stall(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 1, 3, side=96)
    slow = ("engine.rate=0.5", "engine.stall_seconds=0.5")
    launched("data.shards=in/*.tar", "engine=fake", *slow, "output.dir=run", cwd=tmp_path)
    (marker,) = markers(tmp_path / "run").values()
    assert marker["counts"]["captioned"] == 3
    assert [r["strikes"] for r in rows(tmp_path / "run", "00000.tar")] == [0, 0, 0]


@pytest.mark.vllm
@pytest.mark.timeout(400)
def test_a_generating_core_lives_and_a_stopped_one_is_found(tmp_path: Path) -> None:
    """Every answer takes longer than stall_seconds; then the core of the engine is stopped, and ends."""
    write_shards(tmp_path / "in", 1, 60, side=96)
    words = (
        "data.shards=in/*.tar",
        "model=tiny",
        *LONG,
        "engine.max_num_seqs=24",
        "engine.waiting=0",
    )
    words += ("engine.restarts=0", "output.dir=run")
    with started(*words, cwd=tmp_path) as process:

        def core() -> int | None:
            """The core's pid once a caption has come, which took longer than stall_seconds."""
            assert process.popen.poll() is None, process.popen.communicate()
            logs = [p.read_text() for p in tmp_path.glob("run/.recaption/tasks/*.jsonl")]
            if not any(re.search(r'"captioned": [1-9]', text) for text in logs):
                return None
            pids = [pid for pid, command in process.left() if "VLLM::EngineCor" in command]
            return next(iter(pids), None)

        os.kill(wait_until(core, 200, lambda: task_logs(tmp_path)), signal.SIGSTOP)
        result = process.finish(60)
    assert result.returncode == 1
    assert "no output for 2 s" in result.stderr
