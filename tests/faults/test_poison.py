"""Pictures that kill or hang an engine or a decoder cost themselves, and no other sample."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import launch, launched, rows, started, task_logs, wait_until
from tars import plain_members, tiny_png, write_tar

pytestmark = [pytest.mark.faults, pytest.mark.slow]
SAMPLES = 500
POISON = {"k00123": "crash", "k00391": "hang"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 pictures in two shards, and a preset under which two of them are poison."""
    cwd = tmp_path_factory.mktemp("poison")
    members = plain_members(SAMPLES)
    half = SAMPLES // 2 * 3
    write_tar(cwd / "set/00000.tar", members[:half])
    write_tar(cwd / "set/00001.tar", members[half:])
    launched("data.shards=set/{00000..00001}.tar", "engine=fake", "output.dir=whole", cwd=cwd)
    captions = {r["key"]: r["caption"] for r in all_rows(cwd / "whole")}
    assert len(captions) == SAMPLES
    poison = {captions[key]: what for key, what in POISON.items()}
    settings = {"kind": "fake", "poison": poison, "stall_seconds": 1.5, "rate": 300.0}
    (cwd / "presets/engine").mkdir(parents=True)
    text = json.dumps(settings | {"max_num_seqs": 24, "waiting": 8})
    (cwd / "presets/engine/poisoned.yaml").write_text(text)
    return cwd


def all_rows(run: Path) -> list[dict[str, Any]]:
    return [row for name in ("00000.tar", "00001.tar") for row in rows(run, name)]


def words(run: str, *more: str) -> list[str]:
    shards = "data.shards=set/{00000..00001}.tar"
    quick = ("task.flush_seconds=0.1", "task.lease_seconds=1", "data.workers=1")
    return ["--config-dir=presets", shards, "engine=poisoned", f"output.dir={run}", *quick, *more]


def check(run: Path) -> None:
    """Two failed, all others captioned as in the run without poison."""
    found = all_rows(run)
    assert Counter(r["status"] for r in found) == {"captioned": SAMPLES - 2, "failed": 2}
    failed = {r["key"]: r for r in found if r["status"] == "failed"}
    assert set(failed) == set(POISON)
    assert "exit code -9" in failed["k00123"]["reason"]
    assert "no output for 1.5 s" in failed["k00391"]["reason"]
    assert all("alone in an engine that died" in r["reason"] for r in failed.values())
    whole = {r["key"]: r["caption"] for r in all_rows(run.parent / "whole")}
    for row in found:
        if row["key"] not in POISON:
            assert row["caption"] == whole[row["key"]]
            assert row["strikes"] <= 3


def test_two_poison_pictures_among_500(place: Path) -> None:
    launched(*words("poisoned"), cwd=place, timeout=200)
    check(place / "poisoned")


def test_two_engines_share_the_poison(place: Path) -> None:
    launched(*words("two", "engine.replicas=2"), cwd=place, timeout=200)
    check(place / "two")


def task_events(run: Path) -> list[dict[str, Any]]:
    lines = [p.read_text() for p in run.glob(".recaption/tasks/*.jsonl")]
    return [json.loads(line) for text in lines for line in text.splitlines() if line]


@pytest.mark.parametrize(("way", "times"), [("USR2", 1), ("TERM", 1), ("KILL", 2)])
def test_a_preemption_in_the_middle_fails_no_innocent_sample(
    way: str, times: int, place: Path
) -> None:
    run = place / f"preempted-{way}"
    quick = "slurm.signal_delay=2"
    for _ in range(times):
        with started(*words(run.name, quick), cwd=place) as process:

            def restarted() -> int | None:
                """The pid of a task that has lost an engine."""
                events = task_events(run)
                pids = [e["pid"] for e in events if e["event"] == "start"]
                lost = events and events[-1]["event"] == "beat" and events[-1]["restarts"] > 0
                if process.popen.poll() is not None:
                    return -1
                return pids[-1] if lost and len(pids) else None

            pid = wait_until(restarted, 60, lambda: task_logs(run))
            if pid > 0 and f"{pid}" in {str(p) for p, _ in process.left()}:
                os.kill(pid, signal.Signals[f"SIG{way}"])
            process.finish(60)
    assert any(e["event"] == "start" for e in task_events(run))
    launched(*words(run.name, quick), cwd=place, timeout=200)
    check(run)


def test_a_sample_whose_generation_keeps_failing(place: Path, tmp_path: Path) -> None:
    captions = {r["key"]: r["caption"] for r in all_rows(place / "whole")}
    settings = {"kind": "fake", "poison": {captions["k00007"]: "error"}}
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine/erring.yaml").write_text(json.dumps(settings))
    config = f"--config-dir={tmp_path}"
    shard = f"data.shards={place}/set/00000.tar"
    launched(config, shard, "engine=erring", "output.dir=run", cwd=tmp_path)
    found = {r["key"]: r for r in rows(tmp_path / "run", "00000.tar")}
    assert Counter(r["status"] for r in found.values()) == {"captioned": 249, "failed": 1}
    assert "generation failed 2 times" in found["k00007"]["reason"]
    assert found["k00007"]["tries"] == 2


def test_an_engine_that_never_works_ends_the_task(tmp_path: Path) -> None:
    """Every caption kills it: samples are given up on, one by one, or the task ends; never a hang."""
    write_tar(tmp_path / "set/00000.tar", plain_members(1))
    launched("data.shards=set/00000.tar", "engine=fake", "output.dir=whole", cwd=tmp_path)
    caption = rows(tmp_path / "whole", "00000.tar")[0]["caption"]
    (tmp_path / "engine").mkdir()
    settings = {"kind": "fake", "poison": {caption: "crash"}, "restarts": 0}
    (tmp_path / "engine/dying.yaml").write_text(json.dumps(settings))
    arguments = (f"--config-dir={tmp_path}", "data.shards=set/00000.tar", "engine=dying")
    result = launch(*arguments, "output.dir=run", cwd=tmp_path)
    assert result.returncode == 1
    assert os.uname().nodename in result.stderr
    assert "died 1 times without a caption" in result.stderr


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).with_name("crashing")
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), before])))


@pytest.mark.usefixtures("crashing")
def test_a_decoder_that_crashes_or_hangs_costs_one_sample(tmp_path: Path) -> None:
    members = {f"k{i:03d}.png": tiny_png(i) for i in range(40)}
    members["k005.png"] += b"crash the decoder"
    members["k006.png"] += b"crash the decoder"
    members["k021.png"] += b"hang the decoder"
    write_tar(tmp_path / "set/00000.tar", members)
    words = ("data.shards=set/00000.tar", "engine=fake", "image.decode_seconds=0.6")
    launched(*words, "data.workers=1", "output.dir=run", cwd=tmp_path)
    found = {r["key"]: r for r in rows(tmp_path / "run", "00000.tar")}
    rejected = {key: r["reason"] for key, r in found.items() if r["status"] == "rejected"}
    assert set(rejected) == {"k005", "k006", "k021"}
    assert "worker died (exit code -11)" in rejected["k005"]
    assert "worker died (exit code -11)" in rejected["k006"]
    assert "took longer than" in rejected["k021"]
    assert Counter(r["status"] for r in found.values())["captioned"] == 37
