"""data.shards in S3: what is made is what local files make, and no fault shortens it."""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Completed, Made, Source, launch, launched, markers, refused, rows
from stores import S3
from tars import plain_members, tar_bytes

from recaption.errors import InputChanged, ShardError
from recaption.shard import remote, retrying, source
from recaption.shard.patterns import Patterns, expand

Launch = Callable[..., Completed]
NOISE = random.Random(5).randbytes(40_000_000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(remote, "OUTAGE_SECONDS", 2.0)


def read(url: str, tmp_path: Path, size: int | None = None) -> bytes:
    target = tmp_path / "spool"
    target.write_bytes(b"")
    source.fetch(url, str(target), 1 << 30, size)
    return target.read_bytes()


def tars(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.tar")}


def test_a_whole_run(s3: S3, source: Source, made: Made, tmp_path: Path) -> None:
    """Bytes, rows and counts are those of a run from local files; sizes are frozen."""
    for path in source.folder.glob("*.tar"):
        s3.put(f"drawn/{path.name}", path.read_bytes())
    word = (
        f"data.shards=[s3://{s3.bucket}/drawn/{{00000..00002}}.tar,s3://{s3.bucket}/drawn/odd.tar]"
    )
    launched(word, "engine=fake", "output.dir=run", cwd=tmp_path)
    assert tars(tmp_path / "run") == tars(made.run)
    for name in source.shards:
        facts = [{**r, "attempt": ""} for r in rows(tmp_path / "run", name)]
        assert facts == [{**r, "attempt": ""} for r in rows(made.run, name)]
    frozen = (tmp_path / "run/.recaption/run.json").read_text()
    assert [s[2] for s in json.loads(frozen)["shards"]] == [
        (source.folder / name).stat().st_size for name in source.shards
    ]
    texts = [
        p.read_text(errors="replace")
        for p in (tmp_path / "run/.recaption").rglob("*")
        if p.suffix in (".json", ".jsonl", ".out", ".err")
    ]
    assert not any("AWS_SECRET" in text or "'testing'" in text for text in texts)
    assert launch(str(tmp_path / "run"), "--input", cwd=tmp_path, module="verify").returncode == 0


def test_a_glob_and_compressed_shards(s3: S3, source: Source, made: Made, tmp_path: Path) -> None:
    for path in source.folder.glob("*.tar"):
        s3.put(f"in/{path.name}.gz", gzip.compress(path.read_bytes(), 1))
    s3.put("in/other.txt", b"no shard")
    launched(
        f"data.shards=s3://{s3.bucket}/in/*.tar.gz", "engine=fake", "output.dir=run", cwd=tmp_path
    )
    assert tars(tmp_path / "run") == tars(made.run)


@pytest.mark.parametrize("pattern", ["", "/", "/*"])
def test_a_folder_and_a_glob_mean_tars(s3: S3, pattern: str) -> None:
    for name in ("a.tar", "b.tar.zst", "a.parquet", "a_stats.json"):
        s3.put(f"set/{name}", b"")
    patterns = Patterns()
    found = expand(f"s3://{s3.bucket}/set{pattern}", patterns)
    assert found == [f"s3://{s3.bucket}/set/{name}" for name in ("a.tar", "b.tar.zst")]
    assert patterns.remark().endswith("2 others: a.parquet, a_stats.json")
    assert expand(f"s3://{s3.bucket}/nothing") == [f"s3://{s3.bucket}/nothing"]


@pytest.mark.parametrize("cuts", [[0], [5_000_000, 100_000, 1], [16_000_000] * 4])
def test_a_cut_connection_is_taken_up(s3: S3, cuts: list[int], tmp_path: Path) -> None:
    s3.put("a.tar", NOISE)
    s3.faults.cuts = list(cuts)
    assert read(f"s3://{s3.bucket}/a.tar", tmp_path) == NOISE
    assert not s3.faults.cuts


def test_a_connection_that_always_breaks_fails(s3: S3, tmp_path: Path) -> None:
    s3.put("a.tar", NOISE)
    s3.faults.cuts = [1000] * 1000
    with pytest.raises(ShardError, match="cannot be read from byte"):
        read(f"s3://{s3.bucket}/a.tar", tmp_path)
    assert len(s3.faults.of("GET")) < 100


def test_a_busy_store_is_asked_again(s3: S3, tmp_path: Path) -> None:
    s3.put("a.tar", NOISE)
    codes = [503, 500, 503]
    s3.faults.refused = lambda request: codes.pop() if codes else 0
    assert read(f"s3://{s3.bucket}/a.tar", tmp_path) == NOISE
    assert not codes


@pytest.mark.parametrize("size", [len(NOISE), len(NOISE) - 7])
def test_an_object_that_changes_on_the_way(s3: S3, size: int, tmp_path: Path) -> None:
    """Also one of the same size."""
    s3.put("a.tar", NOISE)
    asked = []

    def swap(request: str) -> None:
        if request.startswith("GET") and "a.tar" in request:
            asked.append(request)
            if len(asked) == 2:
                client.put_object(Bucket=s3.bucket, Key="a.tar", Body=NOISE[::-1][:size])

    client = s3.client
    s3.faults.after = swap
    with pytest.raises(InputChanged, match="input changed"):
        read(f"s3://{s3.bucket}/a.tar", tmp_path)


def test_an_object_that_changed_since_the_launch(s3: S3, tmp_path: Path) -> None:
    """Its shard fails by name; the same launch again refuses."""
    for name in ("a", "b"):
        s3.put(f"{name}.tar", tar_bytes(plain_members(3, seed=ord(name))))
    words = (f"data.shards=s3://{s3.bucket}/{{a,b}}.tar", "engine=fake", "output.dir=run")
    launched(*words, "data.range=0", cwd=tmp_path)
    s3.put("b.tar", tar_bytes(plain_members(30, seed=9)))
    refused(launch(*words, cwd=tmp_path), "data.shards", "b.tar", "has changed")
    result = launch("run", "data.tries=1", "data.range=0-1", cwd=tmp_path, module="retry")
    assert result.returncode == 1
    assert "b.tar: input changed" in result.stderr
    assert list(markers(tmp_path / "run")) == ["a.tar"]


def test_missing_things_are_one_message(
    s3: S3, launch_here: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("d/00000.tar", b"x")
    words = ("engine=fake", "output.dir=run")

    def said(shards: str, *named: str) -> None:
        refused(launch_here(f"data.shards={shards}", *words, cwd=tmp_path), "data.shards", *named)

    said("s3://no-such-bucket-anywhere/00000.tar", "no such bucket")
    said(f"s3://{s3.bucket}/d/{{00000..00001}}.tar", "00001.tar", "no such shard")
    said(f"s3://{s3.bucket}/d/{{00000..00012}}.tar", "00001.tar", "no such shard and 11 more")
    said(f"s3://{s3.bucket}/d/*.tgz", "matches no file")
    s3.faults.refused = lambda request: 403
    said(f"s3://{s3.bucket}/d/00000.tar", "access denied")
    s3.faults.clear()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    result = launch(f"data.shards=s3://{s3.bucket}/d/00000.tar", *words, cwd=tmp_path)
    refused(result, "data.shards", "no credentials", "AWS_ACCESS_KEY_ID")
    assert not (tmp_path / "run").exists()


def test_the_optional_package_is_named(
    launch_here: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "s3fs", None)
    for name in ("s3", "s3a"):
        monkeypatch.delitem(_registry, name, raising=False)
    words = ("data.shards=s3://bucket/{00..07}.tar", "engine=fake", "output.dir=run")
    refused(launch_here(*words, cwd=tmp_path), "data.shards", "pip install 'recaption[s3]'")
