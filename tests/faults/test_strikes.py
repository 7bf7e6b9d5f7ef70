"""An engine that dies is no sample's fault until it is shown to be, and never counts as success."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from drawing import write_shards
from helpers import launch, launched, markers, rows, started, task_logs, wait_until

from recaption.status import main as status

pytestmark = [pytest.mark.faults]

WORDS = ("data.shards=in/*.tar", "data.workers=1", "task.flush_seconds=0.1")


def events(run: Path, name: str) -> list[dict[str, Any]]:
    lines = [
        line for p in run.glob(".recaption/tasks/*.jsonl") for line in p.read_text().splitlines()
    ]
    return [e for e in map(json.loads, lines) if e["event"] == name]


def preset(folder: Path, **settings: Any) -> str:
    (folder / "presets/engine").mkdir(parents=True)
    (folder / "presets/engine/ill.yaml").write_text(json.dumps({"kind": "fake", **settings}))
    return f"--config-dir={folder}/presets"


def test_an_engine_that_dies_at_every_request_is_never_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it is launched; and no sample has failed once the engine is well."""
    write_shards(tmp_path / "in", 1, 6, side=96)
    ill = (preset(tmp_path, poison={"*": "crash"}), *WORDS, "engine=ill", "output.dir=run")
    for number in range(2):
        result = launch(*ill, cwd=tmp_path)
        assert result.returncode == 1
        (said,) = [line for line in result.stderr.splitlines() if "died" in line]
        assert "engine 0 died 4 times without a caption in between" in said
        assert len(events(tmp_path / "run", "stop")) == number + 1
    assert markers(tmp_path / "run") == {}
    assert status([str(tmp_path / "run"), "--json"]) == 1
    seen = json.loads(capsys.readouterr().out)
    assert (seen["state"], seen["samples"]["failed"]) == ("needs retry", 0)
    assert sum(e["failed"] for e in events(tmp_path / "run", "beat")) == 0
    launched(*WORDS, "engine=fake", "output.dir=run", cwd=tmp_path)
    assert {r["status"] for r in rows(tmp_path / "run", "00000.tar")} == {"captioned"}


def test_a_poison_that_comes_first_waits_until_others_are_captioned(tmp_path: Path) -> None:
    """One at a time, and nothing was captioned before it."""
    write_shards(tmp_path / "in", 1, 6, side=96)
    launched(*WORDS, "engine=fake", "output.dir=well", cwd=tmp_path)
    first, *others = rows(tmp_path / "well", "00000.tar")
    config = preset(tmp_path, poison={first["caption"]: "crash"}, max_num_seqs=1, waiting=0)
    launched(config, *WORDS, "engine=ill", "output.dir=run", cwd=tmp_path)
    found = rows(tmp_path / "run", "00000.tar")
    assert Counter(r["status"] for r in found) == {"captioned": 5, "failed": 1}
    assert "alone in an engine that died" in found[0]["reason"]
    assert [r["caption"] for r in found[1:]] == [r["caption"] for r in others]


def test_suspects_go_in_windows_of_the_square_root_of_their_number(tmp_path: Path) -> None:
    """One picture of 60 in flight kills: three deaths find it, in 8 windows and at most 8 single answers.

    The first window has 4, half as many as the others, since nothing was captioned after the death.

    `benchmarks/after_death.py` measures the time.
    """
    write_shards(tmp_path / "in", 1, 60, side=96)
    launched(*WORDS, "engine=fake", "output.dir=well", cwd=tmp_path)
    culprit = rows(tmp_path / "well", "00000.tar")[-1]
    poison = {"*": "wait 0.6", culprit["caption"]: "crash"}
    config = preset(tmp_path, poison=poison, max_num_seqs=64, waiting=0)
    launched(config, *WORDS, "engine=ill", "output.dir=run", cwd=tmp_path)
    found = rows(tmp_path / "run", "00000.tar")
    assert Counter(r["status"] for r in found) == {"captioned": 59, "failed": 1}
    assert found[-1]["status"] == "failed"
    assert max(e["restarts"] for e in events(tmp_path / "run", "beat")) == 3
    strikes = Counter(r["strikes"] for r in found[:-1])
    assert set(strikes) == {1, 2}
    assert 4 <= strikes[2] <= 7, "in flight with it at the second death"


def test_an_engine_that_is_given_up_on_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the task's log, by status, in its metrics, and at the end."""
    write_shards(tmp_path / "in", 1, 60, side=96)
    (tmp_path / "prom").mkdir()
    words = (
        "engine=fake",
        "output.dir=run",
        "engine.replicas=2",
        "engine.restarts=0",
        "engine.rate=10",
    )
    with started(*WORDS, *words, f"task.metrics={tmp_path}/prom", cwd=tmp_path) as process:
        run = tmp_path / "run"
        working = lambda: any(e["captioned"] for e in events(run, "beat"))  # noqa: E731
        wait_until(working, 60, lambda: task_logs(tmp_path))
        leaders = [p for p, _ in process.left() if os.getpgid(p) == p != os.getsid(p)]
        assert len(leaders) == 2, process.left()
        os.kill(min(leaders), signal.SIGKILL)
        result = process.finish(60)
    assert result.returncode == 0
    why = "engine 0 died 1 times without a caption in between, last: exit code -9"
    assert f"1 of 2 engines: {why}" in result.stderr
    log = (run / ".recaption/logs/0-0_log.out").read_text()
    assert f"recaption: {why}" in log
    assert "1 of 2 engines go on" in log
    assert status([str(run), "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert (task["engines"], task["engines_wanted"]) == (1, 2)
    assert task["reason"].startswith(f"1 of 2 engines: {why}")
    (metrics,) = [p.read_text() for p in (tmp_path / "prom").glob("*.prom")]
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line[0] != "#")
    assert {k.split("{")[0]: v for k, v in values.items()}["recaption_engines"] == "1"
    assert [k for k in values if k.startswith("recaption_given_up{") and why in k]


PROBED = """
import sys, time
from multiprocessing.connection import wait
from pathlib import Path
from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.engine.base import Device, Spec
from recaption.model.files import model_folder
from recaption.prepare import children
from recaption.pipeline.engines import Engines

folder = Path(sys.argv[1])
words = ["data.shards=x.tar", "data.name=x", "model=tiny", "engine.max_num_seqs=4"]
config = to_config(compose_config(prepare(words)))
spec = Spec(config, (config.prompt,), str(model_folder(config.model.path)))
(folder / "memory").write_bytes(bytes(1 << 16))
children.set_up(spec)
engines = Engines(spec, [Device(0)], str(folder / "memory"), folder / "engine.log")
try:
    (handle,) = engines.handles
    heard = []
    deadline = time.monotonic() + 200
    while "probed" not in [m[0] for m in heard] and time.monotonic() < deadline:
        if handle.ready and not handle.probing:
            engines._probe(handle)
        if wait([handle.connection], 1.0):
            messages = engines.receive(handle)
            assert isinstance(messages, list), (folder / "engine.log").read_text()
            heard += messages
    assert ("probed", "") in heard
    assert handle.proven
finally:
    engines.stop(politely=False)
"""


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_picture_of_our_own_is_captioned_by_vllm(tmp_path: Path) -> None:
    """What shows that an engine works, where it has captioned nothing else; in a process of its own,
    since a task sets its environment and its forkserver up once."""
    command = [sys.executable, "-c", PROBED, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
