"""data.alarm: where most samples come to nothing, a task stops and no launch is a success."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from drawing import Sample, write_shard
from helpers import Completed, launch, launched, markers, rows
from tars import tiny_png

WORDS = ("engine=fake", "data.workers=1", "output.dir=run")
BROKEN = b"<html>not found</html>"


def shard(path: Path, good: int, bad: int, start: int = 0) -> None:
    """A shard whose bad samples stand between its good ones."""
    samples = []
    for i in range(good + bad):
        broken = i * bad // (good + bad) != (i + 1) * bad // (good + bad)
        members = {"jpg": BROKEN if broken else tiny_png(start + i)}
        samples.append(Sample(f"s{start + i:04d}", members))
    path.parent.mkdir(exist_ok=True)
    write_shard(path, samples)


def test_a_finished_run_over_the_alarm_is_no_success(
    tmp_path: Path, launch_here: Callable[..., Completed]
) -> None:
    """Not the second time either; over several shards, and with the most frequent reason."""
    shard(tmp_path / "in/00000.tar", 2, 4)
    shard(tmp_path / "in/00001.tar", 2, 2, 6)
    words = ("data.shards=in/*.tar", *WORDS)
    result = launch(*words, cwd=tmp_path)
    assert result.returncode == 1
    assert "2 of 2 shards published" in result.stdout
    (said,) = [line for line in result.stderr.splitlines() if "data.alarm=0.5: 6 of 10" in line]
    assert "6 × rejected: not a " in said
    again = launch_here(*words, cwd=tmp_path)
    assert again.returncode == 1
    assert "nothing to do" in again.stdout
    assert said in again.stderr
    assert launch_here(*words, "data.alarm=0.6", cwd=tmp_path).returncode == 0
    assert launch_here(*words, "data.range=1", cwd=tmp_path).returncode == 0


def test_samples_that_were_filtered_do_not_count(tmp_path: Path) -> None:
    """Nine of ten are filtered, for what the fake engine says of them."""
    shard(tmp_path / "in/00000.tar", 9, 1)
    (tmp_path / "presets/engine").mkdir(parents=True)
    said = {"kind": "fake", "poison": {"*": "say "}}
    (tmp_path / "presets/engine/mute.yaml").write_text(json.dumps(said))
    words = ("--config-dir=presets", "data.shards=in/*.tar", "engine=mute", *WORDS[1:])
    result = launch(*words, "quality.action=filter", "quality.retries=0", cwd=tmp_path)
    assert result.returncode == 1
    assert "data.alarm=0.5: 1 of 1 samples" in result.stderr


def test_a_task_over_the_alarm_stops_and_publishes_nothing_further(tmp_path: Path) -> None:
    """It goes on where it stopped once the alarm is off, and counts only what it settles itself."""
    shard(tmp_path / "in/00000.tar", 40, 0)
    shard(tmp_path / "in/00001.tar", 60, 300, 40)
    words = ("data.shards=in/*.tar", *WORDS, "engine.rate=300")
    result = launch(*words, cwd=tmp_path)
    assert result.returncode == 1
    said = [line for line in result.stderr.splitlines() if "a task ended: data.alarm=0.5: " in line]
    assert "samples that this task has settled are rejected or failed: " in said[0]
    assert " × rejected: not a " in said[0]
    assert set(markers(tmp_path / "run")) <= {"00000.tar"}
    launched(*words, "data.alarm=1", cwd=tmp_path)
    assert [r["status"] for r in rows(tmp_path / "run", "00001.tar")].count("captioned") == 60


def test_the_reasons_are_said_once(tmp_path: Path) -> None:
    """By the task that stopped for them, though what it published is over the alarm as well."""
    shard(tmp_path / "in/00000.tar", 10, 90)
    shard(tmp_path / "in/00001.tar", 10, 300, 100)
    words = ("data.shards=in/*.tar", *WORDS)
    launched(*words, "data.range=0", "data.alarm=1", cwd=tmp_path)
    result = launch(*words, cwd=tmp_path)
    assert result.returncode == 1
    said = [line for line in (result.stdout + result.stderr).splitlines() if " × " in line]
    assert len(said) == 1, result
    assert "a task ended: data.alarm=0.5: " in said[0]


def test_what_a_retry_asks_again_for_that_does_not_count(tmp_path: Path) -> None:
    """It is rejected again, beside one that is captioned: a success, as is what comes after it."""
    shard(tmp_path / "in/00000.tar", 100, 300)
    launched("data.shards=in/*.tar", *WORDS, "data.alarm=1", cwd=tmp_path)
    words = ("run", "--status", "rejected", "-o", "new", "data.alarm=0.5")
    result = launch(*words, cwd=tmp_path, module="retry")
    assert result.returncode == 0, result
    (marker,) = markers(tmp_path / "new").values()
    assert marker["counts"]["rejected"] == 300
    assert marker["again"] == {"rejected": 300}
    for log in (tmp_path / "new/.recaption/tasks").iterdir():
        log.unlink()  # what the markers say is enough
    assert launch("new", "data.alarm=0.5", cwd=tmp_path, module="retry").returncode == 0


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan"])
def test_the_alarm_is_a_share(
    value: str, tmp_path: Path, launch_here: Callable[..., Completed]
) -> None:
    shard(tmp_path / "in/00000.tar", 1, 0)
    result = launch_here("data.shards=in/*.tar", *WORDS, f"data.alarm={value}", cwd=tmp_path)
    assert result.returncode == 2
    assert "data.alarm" in result.stderr
