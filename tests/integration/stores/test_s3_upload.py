"""A run in a bucket: all of it, only what is missing, and never a marker before its data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Completed, Made, files_of, launch, launched, refused
from stores import S3

from recaption.__main__ import run as run_command
from recaption.shard import retrying
from recaption.upload import main as upload_main
from recaption.upload import outcome
from recaption.upload import s3 as uploading

Upload = Callable[..., Completed]
LOCAL = ("/tasks/", "/logs/", "/submissions/")  # folders that stay here


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    shutil.copytree(made.run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def upload(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Upload:
    """The command within this process."""
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.001)

    def upload(*words: str) -> Completed:
        monkeypatch.setattr(sys, "argv", ["upload", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run_command(upload_main)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert isinstance(end.value.code, int)
        return Completed(list(words), end.value.code, out, err)

    return upload


def wanted(run: Path) -> dict[str, bytes]:
    return {n: c for n, c in files_of(run).items() if not any(p in f"/{n}" for p in LOCAL)}


def stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def assert_no_marker_without_data(s3: S3, run: Path) -> None:
    there, here = s3.objects("set/"), files_of(run)
    for name in there:
        if name.startswith(".recaption/shards/") and name.endswith(".json"):
            for other in (f"{stem(name)}.tar", name.replace(".json", ".parquet")):
                assert there.get(other) == here[other], f"{name} is there without {other}"
    if "sizes.json" in there:
        assert there == wanted(run)


def test_a_run_with_a_shard_that_was_given_up(s3: S3, run: Path, upload: Upload) -> None:
    """Its marker goes along, so that a copy knows it."""
    meta = run / ".recaption"
    for path in (run / "sizes.json", run / "README.md", run / "odd.tar", meta / "shards/odd.json"):
        path.unlink()
    refused(upload(run, f"s3://{s3.bucket}/set"), "1 of 4 shards")
    assert launch(str(run), "--give-up", "odd", cwd=run.parent, module="retry").returncode == 0
    result = upload(run, f"s3://{s3.bucket}/set")
    assert result.returncode == 0, result
    assert "given up: odd.tar" in result.stdout
    assert s3.objects("set/") == wanted(run)
    assert b"given_up" in s3.objects("set/")[".recaption/shards/odd.json"]


def test_everything_once(s3: S3, run: Path, upload: Upload) -> None:
    """The bucket has the run's bytes; again nothing is sent; nothing local changes."""
    before = files_of(run)
    dest = f"s3://{s3.bucket}/set"
    result = upload(run, dest)
    assert result.returncode == 0, result
    assert s3.objects("set/") == wanted(run)
    assert "15 files sent" in result.stdout
    assert result.stderr == ""
    puts = s3.faults.of("PUT", "POST")
    order = [path.split("?")[0].rpartition("set/")[2] for path in puts]
    for name in ("00000", "00001", "00002", "odd"):
        marker = order.index(f".recaption/shards/{name}.json")
        assert marker > order.index(f"{name}.tar")
        assert marker > order.index(f".recaption/shards/{name}.parquet")
    assert order[-1] == "sizes.json"
    s3.faults.requests.clear()
    again = upload(run, f"{dest}/")
    assert again.returncode == 0
    assert "0 files sent (0.0 MB), 15 were there" in again.stdout
    assert not s3.faults.of("PUT", "POST", "DELETE")
    assert files_of(run) == before


def test_a_downloaded_copy_verifies(s3: S3, run: Path, upload: Upload, tmp_path: Path) -> None:
    assert upload(run, f"s3://{s3.bucket}/set").returncode == 0
    copy = tmp_path / "copy"
    for name, content in s3.objects("set/").items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    result = launch(str(copy), "--input", cwd=tmp_path, module="verify")
    assert result.returncode == 0, result


def test_only_what_differs(s3: S3, run: Path, upload: Upload) -> None:
    """Missing, shortened, same size and other bytes, no hash: sent; a marker goes first and comes last."""
    dest = f"s3://{s3.bucket}/set"
    upload(run, dest)
    tar = (run / "00001.tar").read_bytes()
    s3.client.delete_object(Bucket=s3.bucket, Key="set/00000.tar")
    s3.put("set/00001.tar", bytes([tar[0] ^ 1]) + tar[1:])
    s3.put("set/.recaption/shards/00002.parquet", b"short")
    s3.client.delete_object(Bucket=s3.bucket, Key="set/.recaption/shards/odd.json")
    s3.faults.requests.clear()
    result = upload(run, dest)
    assert result.returncode == 0
    assert "7 files sent" in result.stdout
    assert s3.objects("set/") == wanted(run)
    asked = [r.split("?")[0] for r in s3.faults.requests]
    path = f"/{s3.bucket}/set/.recaption/shards/00001.json"
    data = asked.index(f"PUT /{s3.bucket}/set/00001.tar")
    assert asked.index(f"DELETE {path}") < data < asked.index(f"PUT {path}")


def test_large_files_go_in_parts(
    s3: S3, run: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "PART", 5 << 20)
    big = json.loads((run / ".recaption/shards/00001.json").read_bytes())
    content = os.urandom(12 << 20)
    (run / "00001.tar").unlink()
    (run / "00001.tar").write_bytes(content)
    import hashlib

    big["tar"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (run / ".recaption/shards/00001.json").write_text(json.dumps(big))
    faults, s3.faults.refused = (
        [500],
        lambda request: faults.pop() if faults and "partNumber=2" in request else 0,
    )
    assert upload(run, f"s3://{s3.bucket}/set").returncode == 0
    assert not faults
    assert s3.objects("set/")["00001.tar"] == content
    s3.faults.clear()
    assert "0 files sent" in upload(run, f"s3://{s3.bucket}/set").stdout
    parts = s3.client.list_multipart_uploads(Bucket=s3.bucket)
    assert not parts.get("Uploads")


@pytest.mark.parametrize("fault", ["broken", "refused"])
@pytest.mark.parametrize("step", [0, 1, 3, 9, 17, 25, 33, 45])
def test_a_store_that_fails_from_some_request_on(
    s3: S3, run: Path, upload: Upload, fault: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the request, no marker is there without its data, and the next call completes it."""
    monkeypatch.setattr(outcome, "RETRIES", 0)
    monkeypatch.setattr(uploading, "WORKERS", 2)
    from s3fs import S3FileSystem

    monkeypatch.setattr(S3FileSystem, "retries", 1)
    s3.faults.requests.clear()
    if fault == "broken":
        s3.faults.broken = lambda _: len(s3.faults.requests) > step
    else:
        s3.faults.refused = lambda _: 400 if len(s3.faults.requests) > step else 0
    result = upload(run, f"s3://{s3.bucket}/set")
    assert result.returncode in (1, 2)
    assert result.stderr.startswith("recaption: ")
    s3.faults.clear()
    assert_no_marker_without_data(s3, run)
    assert upload(run, f"s3://{s3.bucket}/set").returncode == 0
    assert s3.objects("set/") == wanted(run)


def test_a_connection_that_breaks_sometimes(s3: S3, run: Path, upload: Upload) -> None:
    s3.faults.broken = lambda _: len(s3.faults.requests) % 5 == 0
    result = upload(run, f"s3://{s3.bucket}/set")
    assert result.returncode == 0, result
    s3.faults.clear()
    assert s3.objects("set/") == wanted(run)


@pytest.mark.parametrize("step", [3, 12, 21, 30, 39])
def test_killed_and_called_again(s3: S3, run: Path, upload: Upload, step: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "recaption.upload", str(run), f"s3://{s3.bucket}/set"]
    ) as process:
        s3.faults.requests.clear()
        s3.faults.before = lambda _: process.kill() if len(s3.faults.requests) >= step else None
        assert process.wait(60) == -9
    s3.faults.clear()
    assert_no_marker_without_data(s3, run)
    assert upload(run, f"s3://{s3.bucket}/set").returncode == 0
    assert s3.objects("set/") == wanted(run)


def test_an_unfinished_run(s3: S3, run: Path, upload: Upload) -> None:
    for name in ("sizes.json", "README.md", ".recaption/shards/00001.json"):
        (run / name).unlink()
    dest = f"s3://{s3.bucket}/set"
    refused(upload(run, dest), "1 of 4 shards", "--partial")
    assert not s3.objects()
    assert upload(run, dest, "--partial").returncode == 0
    there = s3.objects("set/")
    assert "00000.tar" in there
    assert "00001.tar" not in there
    assert "sizes.json" not in there


def test_shards_only(s3: S3, run: Path, upload: Upload) -> None:
    assert upload(run, f"s3://{s3.bucket}", "--shards-only").returncode == 0
    assert s3.objects() == {n: c for n, c in files_of(run).items() if "/" not in n}
    assert "0 files sent" in upload(run, f"s3://{s3.bucket}", "--shards-only").stdout


def test_a_damaged_shard_is_not_sent(s3: S3, run: Path, upload: Upload) -> None:
    content = (run / "00001.tar").read_bytes()
    (run / "00001.tar").unlink()
    (run / "00001.tar").write_bytes(content[:-1] + b"x")
    (run / "00002.tar").unlink()
    result = upload(run, f"s3://{s3.bucket}/set")
    assert result.returncode == 1
    assert "00001.tar is not what its marker says" in result.stderr
    assert "00002.tar" in result.stderr
    there = s3.objects("set/")
    assert ".recaption/shards/00000.json" in there
    assert not {"00001.tar", "00002.tar", "sizes.json", "README.md"} & set(there)
    assert_no_marker_without_data(s3, run)


def test_mistakes(
    s3: S3, run: Path, made: Made, upload: Upload, one_shard: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    dest = f"s3://{s3.bucket}/set"
    refused(upload(run), "DEST: needed, a destination")
    refused(upload(run, dest, "--partail"), "did you mean --partial?")
    refused(upload(run, "gs://x/y"), "DEST", "s3://BUCKET", "hf://datasets/USER/NAME")
    refused(upload(run, "hf://models/x"), "DEST", "hf://datasets/USER/NAME")
    refused(upload(tmp_path, dest), "not a run directory")
    refused(upload(run, "s3://no-such-bucket-here/x"), "DEST", "no such bucket")
    launched(f"data.shards={one_shard}", "engine=fake", "output.dir=other", cwd=tmp_path)
    assert upload(run, dest).returncode == 0
    refused(upload(tmp_path / "other", dest), "DEST", "holds another run")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    result = launch(str(run), dest, cwd=tmp_path, module="upload")
    refused(result, "DEST", "no credentials", "AWS_ACCESS_KEY_ID")
