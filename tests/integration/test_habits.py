"""What commands print, and how soon a killed task's work goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

from drawing import write_shards
from helpers import Made, launch, launched, markers, started, wait_until


def test_a_task_that_was_killed_here_is_followed_at_once(tmp_path: Path) -> None:
    """Its leases would be alive for an hour; but its process is gone."""
    write_shards(tmp_path / "in", 3, 40, side=96, plain=True)
    words = ["data.shards=in/*.tar", "engine=fake", "output.dir=run", "task.lease_seconds=3600"]
    leases = tmp_path / "run/.recaption/leases"
    with started(*words, "engine.rate=10", "wait=false", cwd=tmp_path) as process:
        process.popen.communicate(timeout=60)
        logs = tmp_path / "run/.recaption/tasks"
        wait_until(lambda: any("beat" in p.read_text() for p in logs.glob("*")), 60, "no beat")
        assert list(leases.iterdir())
        (log,) = logs.glob("*")
        pid = json.loads(log.read_text().splitlines()[0])["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not process.left(), 20, lambda: f"left: {process.left()}")
        assert list(leases.iterdir())
        began = time.monotonic()
        launched(*words, cwd=tmp_path, timeout=120)
        assert time.monotonic() - began < 100
    assert len(markers(tmp_path / "run")) == 3


def test_a_task_logs_little(made: Made) -> None:
    """A short task: submitit's four lines, and one of ours at the end."""
    (log,) = (made.run / ".recaption/logs").glob("*_log.out")
    ours = [line for line in log.read_text().splitlines() if "submitit" not in line]
    assert len(ours) == 1, ours
    assert re.search(r"4 of 4 shards, \d+ samples, [\d.]+ images/s, 0 in flight", ours[0])


def test_verify_says_how_far_it_is(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 1, 1, side=96, plain=True)
    for number in range(1, 110):
        os.link(tmp_path / "in/00000.tar", tmp_path / f"in/{number:05d}.tar")
    launched("data.shards=in/*.tar", "engine=fake", "output.dir=run", cwd=tmp_path)
    result = launch("run", cwd=tmp_path, module="verify")
    assert result.returncode == 0, result
    assert result.stderr.startswith("0 of 110 shards\n")
    assert "\r" not in result.stderr


def test_figures_of_a_task_in_status_and_as_a_prometheus_file(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 2, 30, side=96, plain=True)
    (tmp_path / "figures").mkdir()
    launched(
        "data.shards=in/*.tar",
        "engine=fake",
        "output.dir=run",
        "task.metrics=figures",
        cwd=tmp_path,
    )
    (file,) = (tmp_path / "figures").iterdir()
    assert re.fullmatch(r"recaption-[0-9a-f]{12}-0-0\.prom", file.name)
    samples = dict(line.rsplit(" ", 1) for line in file.read_text().splitlines() if line[0] != "#")
    labels = f'{{run="{tmp_path}/run",task="{file.stem.removeprefix("recaption-")}"}}'
    assert float(samples[f"recaption_captioned{labels}"]) == 60
    assert float(samples[f"recaption_images_per_second{labels}"]) > 0
    assert float(samples[f"recaption_memory_bytes{labels}"]) > 10e6
    status = json.loads(launch("run", "--json", cwd=tmp_path, module="status").stdout)
    (task,) = status["tasks"]
    assert 0 <= task["metrics"]["starved"] <= 1
    assert task["metrics"]["tokens_per_second"] > 0
    assert task["metrics"]["flying"] == 0
