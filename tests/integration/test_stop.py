"""Stopping a launch by force or politely: nothing is lost, nothing is left running."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import (
    Process,
    captions,
    launched,
    markers,
    read_run,
    rows,
    started,
    wait_until,
)

from recaption.run.journal import History, read_history

SAMPLES = 60
WORDS = (
    "data.shards=in/*.tar",
    "engine=fake",
    "engine.salt=random",  # a caption that is made again is another one
    "output.dir=run",
    "task.lease_seconds=2",  # a killed task leaves a lease
)
SLOW = ("engine.rate=15",)


def captioned_so_far(run: Path) -> int:
    count = 0
    for log in (run / ".recaption/tasks").glob("*.jsonl"):
        events = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        count += max((e.get("captioned", 0) for e in events if e["event"] == "beat"), default=0)
    return count


def histories(run: Path, shards: list[str]) -> dict[str, History]:
    """What the journals of a stopped run say."""
    fingerprint = json.loads((run / ".recaption/run.json").read_bytes())["fingerprint"]
    found = {}
    for name in shards:
        journals = list((run / ".recaption/journal").glob(f"{name.removesuffix('.tar')}@*"))
        heads = [h for path in journals for h in [_digest(path)]]
        found[name] = read_history(journals, fingerprint, heads[0]) if heads else History()
    return found


def _digest(journal: Path) -> str:
    import zstandard

    head = zstandard.ZstdDecompressor().decompressobj().decompress(journal.read_bytes())
    digest: str = json.loads(head.splitlines()[0])["digest"]
    return digest


def working(process: Process, run: Path, captions: int) -> None:
    """Wait until a launch has made some captions."""

    def enough() -> bool:
        assert process.popen.poll() is None, process.popen.communicate()
        return run.exists() and captioned_so_far(run) >= captions

    wait_until(enough, 60, "the run made no captions")


def assert_finished_from_journal(tmp_path: Path, source: list[str]) -> None:
    """The same command finishes; what was journalled or published stays as it was."""
    run = tmp_path / "run"
    kept = {
        (name, index): event["captions"]["short"]["caption"]
        for name, history in histories(run, source).items()
        for index, event in history.final.items()
    }
    published = {
        (name, row["index"]): row["caption"] for name in markers(run) for row in rows(run, name)
    }
    assert kept
    assert len(kept | published) < SAMPLES * len(source), (
        "it was stopped too late to prove anything"
    )
    launched(*WORDS, cwd=tmp_path)
    assert list(markers(run)) == source
    final = {(name, row["index"]): row["caption"] for name in source for row in rows(run, name)}
    assert len(final) == SAMPLES * len(source)
    assert {place: final[place] for place in kept | published} == kept | published
    assert [len(s) for s in read_run(run).values()] == [SAMPLES] * len(source)
    assert len(set(captions(run).values())) == SAMPLES * len(source)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launch_flushes_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    """Nothing but the stop itself flushes here: flush_seconds is longer than the test."""
    source = list(write_shards(tmp_path / "in", 2, SAMPLES, side=96))
    words = (*WORDS, *SLOW, "task.flush_seconds=1000", "slurm.tasks=2", "slurm.parallelism=2")
    with started(*words, cwd=tmp_path) as process:
        working(process, tmp_path / "run", 10)
        before = captioned_so_far(tmp_path / "run")
        process.popen.send_signal(number)
        result = process.finish(30)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert "the same command goes on" in result.stderr
    events = sum(len(h.final) for h in histories(tmp_path / "run", source).values())
    assert events >= before
    assert_finished_from_journal(tmp_path, source)


@pytest.mark.faults
def test_a_killed_launcher_takes_its_tasks_along(tmp_path: Path) -> None:
    source = list(write_shards(tmp_path / "in", 2, SAMPLES, side=96))
    words = (*WORDS, *SLOW, "task.flush_seconds=0.5", "slurm.tasks=2", "slurm.parallelism=2")
    with started(*words, cwd=tmp_path) as process:
        working(process, tmp_path / "run", 10)
        os.kill(process.popen.pid, signal.SIGKILL)
        process.finish(10)
    assert_finished_from_journal(tmp_path, source)


@pytest.mark.faults
def test_a_killed_task_takes_its_processes_along(tmp_path: Path) -> None:
    """Tasks are not started again here: the launch ends, and the next one goes on."""
    source = list(write_shards(tmp_path / "in", 2, SAMPLES, side=96))
    words = (*WORDS, *SLOW, "task.flush_seconds=0.5")
    with started(*words, cwd=tmp_path) as process:
        working(process, tmp_path / "run", 20)
        (log,) = (tmp_path / "run/.recaption/tasks").glob("*.jsonl")
        start = json.loads(log.read_text().splitlines()[0])
        os.kill(start["pid"], signal.SIGKILL)
        result = process.finish(30)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert_finished_from_journal(tmp_path, source)


@pytest.mark.faults
def test_an_interrupted_sweep_begins_no_further_point(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 1, SAMPLES, side=96)
    words = ("-m", *WORDS[:3], "prompt=short,detailed", "output.dir=run-${prompt.name}", *SLOW)
    with started(*words, cwd=tmp_path) as process:
        working(process, tmp_path / "run-short", 3)
        process.interrupt()
        result = process.finish(30)
    assert result.returncode == 1
    assert not (tmp_path / "run-detailed").exists()
