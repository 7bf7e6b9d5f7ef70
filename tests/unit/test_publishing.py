"""Publishing a shard: whoever is first decides each file, and a failure leaves none of its own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from recaption.errors import DiskFull, ShardError
from recaption.run.columns import Columns
from recaption.run.paths import RunPaths
from recaption.run.rows import write_rows
from recaption.shard.publishing import Files, Published, Rows, publish_shard

NAME = "00000.tar"


def rows_of(caption: str) -> Rows:
    empty: dict[str, Any] = dict.fromkeys(Columns(("short",)).names)
    return [{**empty, "key": "a", "index": 0, "status": "captioned", "caption": caption}]


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    made = RunPaths(tmp_path / "run")
    for folder in (made.root, *made.folders()):
        folder.mkdir(exist_ok=True)
    return made


def write(out: BinaryIO, rows: Rows) -> str:
    content = rows[0]["caption"].encode()
    out.write(content)
    return hashlib.sha256(content).hexdigest()


def record(rows: Rows, files: Files) -> dict[str, Any]:
    return {"samples": len(rows), **files}


def published(paths: RunPaths, caption: str, tag: str, tar: Any = write) -> Published:
    def sidecar(path: Path) -> None:
        write_rows(path, rows_of(caption), Columns(("short",)))

    return publish_shard(paths, NAME, tag, sidecar=sidecar, tar=tar, record=record)


def files_of(paths: RunPaths) -> set[str]:
    return {str(p.relative_to(paths.root)) for p in paths.root.rglob("*") if p.is_file()}


ALL = {NAME, ".recaption/shards/00000.parquet", ".recaption/shards/00000.json"}


def test_the_first_decides_and_the_second_agrees(paths: RunPaths) -> None:
    first, second = published(paths, "one", "a"), published(paths, "two", "b")
    assert (first.won, second.won) == (True, False)
    assert second.rows == first.rows == rows_of("one")
    assert json.loads(paths.marker(NAME).read_text()) == first.record == second.record
    assert paths.tar(NAME).read_bytes() == b"one"
    assert files_of(paths) == ALL


def test_what_is_interrupted_is_gone_on_with(paths: RunPaths) -> None:
    def broken(out: BinaryIO, rows: Rows) -> str:
        out.write(b"half")
        raise ShardError("the source has ended")

    with pytest.raises(ShardError, match="has ended"):
        published(paths, "one", "a", broken)
    assert files_of(paths) == ALL - {NAME, ".recaption/shards/00000.json"}
    assert published(paths, "two", "b").rows == rows_of("one")
    assert files_of(paths) == ALL


def test_a_tar_of_somebody_elses_gets_no_marker(paths: RunPaths) -> None:
    paths.tar(NAME).write_bytes(b"not ours")
    with pytest.raises(ShardError, match=r"00000\.tar exists and is not this run's"):
        published(paths, "one", "a")
    assert paths.tar(NAME).read_bytes() == b"not ours"
    assert not paths.marker(NAME).exists()
    assert files_of(paths) == ALL - {".recaption/shards/00000.json"}


def test_a_full_disk_is_said_as_such(paths: RunPaths) -> None:
    def full(out: BinaryIO, rows: Rows) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull, match=r"no space left for .*00000\.tar"):
        published(paths, "one", "a", full)
    assert NAME not in files_of(paths)


def test_a_damaged_sidecar_is_no_reason_to_publish(paths: RunPaths) -> None:
    paths.sidecar(NAME).write_bytes(b"PAR1 and no more")
    with pytest.raises(ShardError, match="not a whole sidecar"):
        published(paths, "one", "a")
    assert not paths.tar(NAME).exists()


def test_a_linked_sidecar_has_to_be_the_one_that_is_there(paths: RunPaths, tmp_path: Path) -> None:
    given = tmp_path / "given.parquet"
    write_rows(given, rows_of("one"), Columns(("short",)))
    first = publish_shard(paths, NAME, "a", sidecar=given, tar=write, record=record)
    assert first.won
    assert paths.sidecar(NAME).samefile(given)
    other = tmp_path / "other.parquet"
    write_rows(other, rows_of("two"), Columns(("short",)))
    with pytest.raises(ShardError, match=r"00000\.parquet exists and is not this run's"):
        publish_shard(paths, NAME, "b", sidecar=other, tar=write, record=record)
