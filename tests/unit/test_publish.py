"""Files appear whole, under their final name, once; whatever fails on the way leaves nothing."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recaption.errors import DiskFull, TaskError
from recaption.run import publish


@pytest.fixture
def new(tmp_path: Path) -> Callable[[str], Path]:
    """A written temporary file."""

    def make(content: str) -> Path:
        path = tmp_path / f"tmp-{content}"
        path.write_text(content)
        return path

    return make


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


@pytest.fixture(params=["links", "EPERM", "EOPNOTSUPP", "ENOSYS"])
def refusing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with hard links, and some that refuse them."""
    if request.param != "links":
        monkeypatch.setattr(os, "link", failing(getattr(errno, request.param)))
    publish._say_once.cache_clear()
    return str(request.param)


def test_the_first_writer_wins(
    refusing: str,
    new: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    final = tmp_path / "final"
    assert publish.publish(new("one"), final)
    assert not publish.publish(new("two"), final)
    assert final.read_text() == "one"
    assert final.stat().st_nlink == 1
    assert names(tmp_path) == {"final"}
    said = capfd.readouterr().err
    assert said.count("no hard links here") == (0 if refusing == "links" else 1)


def test_without_links_and_exclusive_renames_the_task_ends(
    new: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Libc:
        @staticmethod
        def renameat2(*_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc)
    with pytest.raises(TaskError, match="refuses both hard links and exclusive renames"):
        publish.publish(new("one"), tmp_path / "final")
    assert names(tmp_path) == set()


def test_a_link_whose_answer_got_lost(
    new: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def lossy(source: Path, target: Path) -> None:
        real(source, target)
        raise OSError(errno.EIO, "reply lost")

    monkeypatch.setattr(os, "link", lossy)
    assert publish.publish(new("one"), tmp_path / "final")
    assert (tmp_path / "final").read_text() == "one"


@pytest.mark.parametrize("step", ["fsync", "link"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failing_step_leaves_nothing(
    step: str,
    code: int,
    new: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, step, failing(code))
    expected = OSError if code == errno.EIO else DiskFull
    with pytest.raises(expected):
        publish.publish(new("one"), tmp_path / "final")
    assert names(tmp_path) == set()


def test_a_folder_that_cannot_be_synced_fails_after_the_link(
    new: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def second_fails(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.EIO, "I/O error")
        real(fd)

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(OSError, match="I/O error"):
        publish.publish(new("one"), tmp_path / "final")
    assert names(tmp_path) == {"final"}, "whole, so that the next attempt can take it as it is"
    assert not publish.publish(new("one again"), tmp_path / "final")


def test_bytes_and_name_are_synced(
    new: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    temporary = new("one")
    publish.publish(temporary, tmp_path / "final")
    assert synced == [str(temporary), str(tmp_path)]


@pytest.mark.parametrize("write", [publish.create, publish.replace])
def test_a_full_disk_leaves_no_temporary_file(
    write: Callable[[Path, bytes, Path], Any], tmp_path: Path
) -> None:
    os.symlink("/dev/full", tmp_path / "tmp")
    with pytest.raises(DiskFull, match="no space left"):
        write(tmp_path / "final", b"x" * 100_000, tmp_path / "tmp")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("write", [publish.create, publish.replace])
def test_a_temporary_file_that_is_swept_away_is_written_again(
    write: Callable[[Path, bytes, Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = publish._write, [1, 2]

    def swept(path: Path, content: bytes) -> None:
        real(path, content)
        if left:
            left.pop()
            path.unlink()

    monkeypatch.setattr(publish, "_write", swept)
    write(tmp_path / "final", b"content", tmp_path / "tmp")
    assert (tmp_path / "final").read_bytes() == b"content"
    assert names(tmp_path) == {"final"}


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish.create(tmp_path / "missing/final", b"x", tmp_path / "tmp")
    with pytest.raises(FileNotFoundError):
        publish.replace(tmp_path / "final", b"x", tmp_path / "missing/tmp")


@pytest.mark.parametrize("mask", [0, 0o027, 0o077])
def test_files_heed_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        publish.create(tmp_path / "a", b"", tmp_path / "tmp")
        publish.replace(tmp_path / "b", b"", tmp_path / "tmp")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o666 & ~mask] * 2


def race(folder: str, number: int, rounds: int) -> None:
    for i in range(rounds):
        content = f"{i} by {number} " * 200
        publish.create(Path(folder, f"{i}"), content.encode(), Path(folder, f"tmp-{i}-{number}"))


def test_racing_writers_leave_one_whole_file_each(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    racers = [context.Process(target=race, args=(str(tmp_path), n, 40)) for n in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert names(tmp_path) == {str(i) for i in range(40)}
    for path in tmp_path.iterdir():
        words = path.read_text().split()
        assert len(words) == 600
        assert set(words) == {path.name, "by", words[2]}
