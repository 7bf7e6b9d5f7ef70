"""Damaged shards through a run: failed with the place, or salvaged up to it with nothing unsaid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import (
    launch,
    launched,
    markers,
    read_shard,
    rows,
    started,
    task_logs,
    wait_until,
)
from tars import members_of, plain_members, tar_bytes, tiny_png, write_tar

SAMPLES = 30
CUT = 50_000  # bytes; in the middle of k00016


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A cut shard, one with repeated and interleaved samples, a whole one, and rubbish."""
    whole = tar_bytes(plain_members(SAMPLES))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/cut.tar").write_bytes(whole[:CUT])
    twice = [*members_of("a", 1), *members_of("b", 2), *members_of("a", 3)]
    apart = [("c.png", tiny_png(4)), ("d.png", tiny_png(5)), ("c.txt", b"c"), ("d.txt", b"d")]
    write_tar(tmp_path / "set/mixed.tar", [*twice, *apart, *members_of("e", 6)])
    write_tar(tmp_path / "set/rubbish.tar", [])
    (tmp_path / "set/rubbish.tar").write_bytes(b"<html>" * 999)
    (tmp_path / "set/whole.tar").write_bytes(whole)
    return tmp_path


def words(*more: str) -> list[str]:
    return ["data.shards=set/*.tar", "engine=fake", "data.tries=1", "output.dir=run", *more]


def test_fail_publishes_nothing_and_says_where(place: Path) -> None:
    result = launch(*words(), cwd=place)
    assert result.returncode == 1
    assert "cut.tar: cut inside member 'k00016.png' at byte 49664" in result.stderr
    assert "mixed.tar: key 'a' appears twice (again at byte 6144)" in result.stderr
    assert "rubbish.tar: not a whole tar at byte 0" in result.stderr
    assert list(markers(place / "run")) == ["whole.tar"]
    assert [p.name for p in (place / "run").glob("*.tar")] == ["whole.tar"]


@pytest.mark.parametrize("mode", ["full", "captions"])
def test_salvage_publishes_what_is_intact_and_records_the_rest(mode: str, place: Path) -> None:
    result = launch(*words("data.damaged=salvage", f"output.mode={mode}"), cwd=place)
    assert result.returncode == 1
    assert "3 of 4 shards published" in result.stdout
    assert "rubbish.tar: not a whole tar at byte 0" in result.stderr
    run = place / "run"

    found = rows(run, "cut.tar")
    assert [r["key"] for r in found] == [f"k{i:05d}" for i in range(16)]
    assert [r["status"] for r in found] == ["captioned"] * 15 + ["rejected"]
    assert "may be cut: cut inside member" in found[-1]["reason"]
    made = markers(run)
    assert "at byte 49664" in made["cut.tar"]["damaged"]
    assert made["cut.tar"]["counts"]["captioned"] == 15
    assert "damaged" not in made["whole.tar"]

    mixed = {(r["index"], r["key"]): (r["status"], r["reason"]) for r in rows(run, "mixed.tar")}
    again = [k for _, k in mixed if "@" in k]
    assert [k for _, k in mixed] == ["a", "b", again[0], "c", "d", *again[1:], "e"]
    assert [k.split("@")[0] for k in again] == ["a", "c", "d"]
    captioned = [k for (_, k), (status, _) in mixed.items() if status == "captioned"]
    assert captioned == ["a", "b", "e"]
    assert "key 'a' appears twice" in mixed[2, again[0]][1]
    assert "not adjacent" in mixed[3, "c"][1]
    shard = read_shard(run / "mixed.tar")
    if mode == "full":
        assert list(shard) == captioned
        assert shard["a"]["png"] == tiny_png(1)
    else:
        assert list(shard) == [k for _, k in mixed]
        assert [k for k, m in shard.items() if m["txt"]] == captioned
    assert launch("run", cwd=place, module="verify").returncode == 0


def test_a_shard_that_is_cut_under_a_task_costs_no_sample(tmp_path: Path) -> None:
    members = [(f"k{i:03d}.png", tiny_png(i, side=200)) for i in range(250)]
    shard = write_tar(tmp_path / "set/00000.tar", members)
    content = shard.read_bytes()
    words = ("data.shards=set/00000.tar", "data.workers=1", "data.tries=1", "output.dir=run")
    quick = ("engine=fake", "engine.rate=80", "data.buffer_mb=16", "task.flush_seconds=0.1")
    journals = tmp_path / "run/.recaption/journal"
    with started(*words, *quick, cwd=tmp_path) as process:
        wait_until(lambda: list(journals.glob("*")), 60, lambda: task_logs(tmp_path))
        os.truncate(shard, len(content) // 2)
        result = process.finish(120)
    assert result.returncode == 1
    assert "00000.tar: " in result.stderr
    assert not markers(tmp_path / "run")
    shard.write_bytes(content)
    launched(*words, "engine=fake", cwd=tmp_path)
    assert [r["status"] for r in rows(tmp_path / "run", "00000.tar")] == ["captioned"] * 250


def test_a_damaged_journal_is_reported_and_read_up_to_its_damage(tmp_path: Path) -> None:
    write_tar(tmp_path / "set/00000.tar", plain_members(200))
    words = ("data.shards=set/00000.tar", "engine=fake", "output.dir=run")
    quick = ("engine.rate=60", "task.flush_seconds=0.1")
    folder = tmp_path / "run/.recaption/journal"

    def flushed() -> Path | None:
        return next((p for p in folder.glob("*") if p.stat().st_size > 2000), None)

    with started(*words, *quick, cwd=tmp_path) as process:
        wait_until(flushed, 60, lambda: task_logs(tmp_path))
        process.popen.kill()
        process.finish(60)
    journal = flushed()
    assert journal
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 0xFF
    journal.write_bytes(content)
    launched(*words, cwd=tmp_path)
    found = rows(tmp_path / "run", "00000.tar")
    assert [r["status"] for r in found] == ["captioned"] * 200
    assert len({r["attempt"] for r in found}) == 2, "what came before the damage was used"
    assert "damaged journal, read up to its damage" in task_logs(tmp_path)


def test_members_that_could_run_code_are_copied_unread(place: Path) -> None:
    marker = place / "ran"
    bomb = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    members = {f"k.{e}": bomb for e in ("pyd", "pickle", "pkl", "pth", "npy", "ten", "json", "txt")}
    write_tar(place / "set/code.tar", {"k.png": tiny_png(1), **members})
    launched("data.shards=set/code.tar", "engine=fake", "output.dir=run", cwd=place)
    found = read_shard(place / "run/code.tar")["k"]
    copied = ("pyd", "pickle", "pkl", "pth", "npy", "ten")
    assert {e: c for e, c in found.items() if e in copied} == dict.fromkeys(copied, bomb)
    assert not marker.exists()
