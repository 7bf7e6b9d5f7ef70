"""No process of a task with real vLLM outlives it, at whatever moment the task is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import Process, started, task_logs, wait_until

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.timeout(500),
]

MODEL = ("model=tiny",)
ENDLESS = ("sampling.max_tokens=400", "sampling.ignore_eos=true", "engine.max_num_seqs=4")
STARTS = 400  # seconds that an engine may take to start on a busy machine
GONE = 5  # much less than vLLM takes to be imported


def runs(process: Process, words: str) -> bool:
    assert process.popen.poll() is None, process.popen.communicate()
    return any(words in command for _, command in process.left())


def engine_is_ready(process: Process, run: Path) -> bool:
    return runs(process, "") and any(
        json.loads(line).get("captioned", 0) > 0
        for log in (run / ".recaption/tasks").glob("*.jsonl")
        for line in log.read_text().splitlines()
        if line.endswith("}")
    )


@pytest.mark.parametrize("moment", ["preparation imports", "engine imports", "engine works"])
def test_a_killed_task_leaves_nothing(tmp_path: Path, moment: str) -> None:
    write_shards(tmp_path / "in", 1, 100, side=128)
    words = ("data.shards=in/*.tar", *MODEL, *ENDLESS, "output.dir=run")
    with started(*words, cwd=tmp_path) as process:
        reached = {
            "preparation imports": lambda: runs(process, "forkserver"),
            "engine imports": lambda: runs(process, "spawn_main"),
            "engine works": lambda: engine_is_ready(process, tmp_path / "run"),
        }[moment]
        wait_until(reached, STARTS, lambda: f"{moment}: not reached\n{task_logs(tmp_path)}")
        (log,) = (tmp_path / "run/.recaption/tasks").glob("*.jsonl")
        os.kill(json.loads(log.read_text().splitlines()[0])["pid"], signal.SIGKILL)
        process.popen.wait(30)
        wait_until(lambda: not process.left(), GONE, lambda: f"left: {process.left()}")
