"""Real vLLM with a model over two processes, of which one is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import launched, markers, rows, started, task_logs, wait_until

from recaption.engine import leftovers
from recaption.model.files import model_folder

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1800)]

SHARDS, SAMPLES = 2, 60
HEADS = {"hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
WORDS = ("model.path=four", "model.name=four", "model.load_format=dummy", "prompt=short")
WORDS += ("model.max_model_len=512", "engine.tensor_parallel=2", "engine.max_num_seqs=8")
WORDS += ("engine.waiting=4", "sampling.max_tokens=60", "sampling.ignore_eos=true")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a random model with four heads lies, which two processes can share.

    With a short TMPDIR, on a machine that pretends to have three GPUs.
    """
    smi = tmp_path / "bin/nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\nfor i in 0 1 2; do echo GPU $i: pretended; done\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shutil.copytree(
        model_folder("builtin:tiny"),
        tmp_path / "four",
        ignore=shutil.ignore_patterns("*.safetensors"),
    )
    path = tmp_path / "four/config.json"
    config = json.loads(path.read_bytes())
    config["text_config"] |= {**HEADS, "num_key_value_heads": 4}
    config["vision_config"] |= HEADS
    path.write_text(json.dumps(config))
    with tempfile.TemporaryDirectory(prefix="tp") as scratch:
        monkeypatch.setenv("TMPDIR", scratch)
        yield tmp_path


def meetings() -> set[str]:
    """Shared memory that vLLM names after the file where an engine's workers meet."""
    return {path.name for path in leftovers.MEMORY.glob(leftovers.MEETING)}


def test_a_killed_worker_costs_no_sample_and_leaves_nothing(folder: Path) -> None:
    before = meetings()
    write_shards(folder / "in", SHARDS, SAMPLES, side=96)
    run = folder / "run"
    seen: set[int] = set()  # processes of this run: other tests leave things at the same time
    with started("data.shards=in/*.tar", *WORDS, "output.dir=run", cwd=folder) as process:

        def worker() -> int | None:
            """A worker's pid once a caption has come."""
            assert process.popen.poll() is None, process.popen.communicate()
            logs = [p.read_text() for p in run.glob(".recaption/tasks/*.jsonl")]
            if not any(re.search(r'"captioned": [1-9]', text) for text in logs):
                return None
            there = process.left()
            seen.update(pid for pid, _ in there)
            pids = [pid for pid, command in there if "VLLM::Worker" in command]
            return max(pids, default=None)

        os.kill(wait_until(worker, 800, lambda: task_logs(folder)), signal.SIGKILL)
        result = process.finish(800)
    assert result.returncode == 0, result.stderr + task_logs(folder)
    idle = "engine.tensor_parallel=2: no engine takes 1 of the 3 GPUs of a task"
    assert idle in result.stderr
    (log,) = run.glob(".recaption/logs/*_log.out")
    assert idle in log.read_text()
    assert "leaked" not in log.read_text()
    assert len(markers(run)) == SHARDS
    found = [row for name in markers(run) for row in rows(run, name)]
    assert [row["status"] for row in found] == ["captioned"] * SHARDS * SAMPLES
    assert any(row["strikes"] for row in found), "the worker was killed too late"
    launched("run", "--complete", "--input", cwd=folder, module="verify")
    wait_until(lambda: meetings() <= before, 60, lambda: str(meetings() - before))
    left = {path.name for path in Path(os.environ["TMPDIR"]).iterdir()}
    kept = ("recaption-compiled-", "torchinductor_")  # the latter is made wherever vLLM is imported
    assert not [name for name in left if not name.startswith(kept)]
    assert not {int(name.split("-")[1]) for name in leftovers.abandoned()} & seen
