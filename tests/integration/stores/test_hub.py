"""The Hub, as input and as destination, against a local server that speaks its HTTP endpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Completed, Made, Source, files_of, launch, launched, refused
from stores import Hub

LOCAL = ("/tasks/", "/logs/", "/submissions/")  # folders that stay here
ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    shutil.copytree(made.run, tmp_path / "run")
    return tmp_path / "run"


def upload(run: Path, *words: str, code: int = 0) -> Completed:
    result = launch(str(run), *words, cwd=run.parent, module="upload")
    assert "Traceback" not in result.stdout + result.stderr
    assert result.returncode == code, result
    return result


def wanted(run: Path) -> dict[str, bytes]:
    return {n: c for n, c in files_of(run).items() if not any(p in f"/{n}" for p in LOCAL)}


def assert_markers_have_their_data(files: dict[str, bytes], run: Path) -> None:
    here = files_of(run)
    for name in files:
        if name.startswith(".recaption/shards/") and name.endswith(".json"):
            stem = name.rpartition("/")[2].removesuffix(".json")
            for other in (f"{stem}.tar", name.replace(".json", ".parquet")):
                assert files.get(other) == here[other]


def test_everything_once(hub: Hub, run: Path) -> None:
    """A private data set is made; again nothing is sent; then only what is missing there."""
    before = files_of(run)
    result = upload(run, "hf://datasets/user/name")
    assert "made the private data set user/name" in result.stdout
    assert "15 files sent" in result.stdout
    assert hub.files["user/name"] == wanted(run)
    assert hub.private["user/name"] is True
    assert hub.commits[-1] == ["README.md", "sizes.json"]
    assert len(hub.commits) == 2
    again = upload(run, "hf://datasets/user/name")
    assert "0 files sent (0.0 MB), 15 were there" in again.stdout
    assert len(hub.commits) == 2
    del hub.files["user/name"]["00001.tar"]
    hub.files["user/name"]["odd.tar"] = b"another"
    hub.files["user/name"][".recaption/run.json"] += b" "
    result = upload(run, "hf://datasets/user/name")
    assert "3 files sent" in result.stdout
    assert hub.files["user/name"] == wanted(run)
    assert files_of(run) == before


def test_a_folder_of_a_data_set_that_is_there(hub: Hub, run: Path) -> None:
    hub.files["user/name"] = {"README.md": b"mine", "sub/x.txt": b"mine, too"}
    result = upload(run, "hf://datasets/user/name/sub/set", "--shards-only")
    assert "made the" not in result.stdout
    expected = {f"sub/set/{n}": c for n, c in files_of(run).items() if "/" not in n}
    assert hub.files["user/name"] == {
        **expected, "README.md": b"mine", "sub/x.txt": b"mine, too"
    }  # fmt: skip


@pytest.mark.parametrize("fault", ["broken", 503])
def test_a_connection_that_breaks_sometimes(hub: Hub, run: Path, fault: object) -> None:
    hub.files["user/name"] = {}
    faults = [1, 3, 4, 7, 8]

    def bad(_: str) -> bool:
        return len(hub.faults.requests) in faults

    if fault == "broken":
        hub.faults.broken = bad
    else:
        hub.faults.refused = lambda request: 503 if bad(request) else 0
    upload(run, "hf://datasets/user/name")
    assert hub.files["user/name"] == wanted(run)


@pytest.mark.parametrize("step", [3, 5, 8, 12, 13])
def test_killed_and_called_again(
    hub: Hub, run: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs that were sent before are not sent again; no marker is there without its data."""
    hub.files["user/name"] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "recaption.upload", str(run), "hf://datasets/user/name"]
    ) as process:
        hub.faults.before = lambda _: process.kill() if len(hub.faults.requests) >= step else None
        assert process.wait(60) == -9
    hub.faults.clear()
    sent = set(hub.blobs)
    assert_markers_have_their_data(hub.files["user/name"], run)
    upload(run, "hf://datasets/user/name")
    assert hub.files["user/name"] == wanted(run)
    again = [path for path in hub.faults.of("PUT") if path.rpartition("/")[2] in sent]
    assert not again


def test_no_access_and_an_unfinished_run(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / ".recaption/shards/00001.json").unlink()
    (run / "sizes.json").unlink()
    refused(upload(run, "hf://datasets/user/name", code=2), "1 of 4 shards", "--partial")
    assert "user/name" not in hub.files
    upload(run, "hf://datasets/user/name", "--partial")
    assert "00001.tar" not in hub.files["user/name"]
    assert "README.md" not in hub.files["user/name"]
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(upload(run, "hf://datasets/user/name", "--partial", code=2), "DEST", "HF_TOKEN")


def test_a_damaged_shard_is_not_sent(hub: Hub, run: Path) -> None:
    content = (run / "00001.tar").read_bytes()
    (run / "00001.tar").unlink()
    (run / "00001.tar").write_bytes(content[:-1] + b"x")
    result = upload(run, "hf://datasets/user/name", code=1)
    assert "00001.tar is not what its marker says" in result.stderr
    assert not {"00001.tar", "sizes.json"} & set(hub.files["user/name"])
    assert_markers_have_their_data(hub.files["user/name"], run)


def test_input_from_the_hub(hub: Hub, source: Source, made: Made, tmp_path: Path) -> None:
    """A whole run equals the one from local files, although answers are cut short on the way."""
    hub.files["user/set"] = {
        f"data/{path.name}": path.read_bytes() for path in source.folder.glob("*.tar")
    }
    hub.faults.cutting, hub.faults.cuts = "/resolve/", [100_000, 7]
    word = "data.shards=hf://datasets/user/set/data/*.tar"
    launched(word, "engine=fake", "output.dir=run", cwd=tmp_path)
    tars = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.tar")}
    assert tars == {path.name: path.read_bytes() for path in made.run.glob("*.tar")}
    missing = "data.shards=hf://datasets/user/set/data/{00000..00003}.tar"
    result = launch(missing, "engine=fake", "output.dir=no", cwd=tmp_path)
    refused(result, "data.shards", "00003.tar", "no such")
    result = launch(
        "data.shards=hf://datasets/no/set/a.tar", "engine=fake", "output.dir=no", cwd=tmp_path
    )
    refused(result, "data.shards", "no such repository")


def test_a_branch_that_is_not_there_is_made(hub: Hub, run: Path) -> None:
    hub.files["user/name"] = {}
    result = upload(run, "hf://datasets/user/name@v2")
    assert "made its branch v2" in result.stdout
    assert hub.branches == {"main", "v2"}
    assert hub.files["user/name"] == wanted(run)
    result = upload(run, "hf://datasets/user/name@v2")
    assert "made" not in result.stdout


@pytest.mark.parametrize(("cuts", "whole"), [([70_000, 5, 900_000], True), ([1000] * 500, False)])
def test_a_cut_answer_of_the_hub(hub: Hub, cuts: list[int], whole: bool, tmp_path: Path) -> None:
    """In a process of its own, as the client library reads the environment when it is imported."""
    content = os.urandom(3_000_000)
    hub.files["user/set"] = {"a.tar": content}
    (tmp_path / "spool").write_bytes(b"")
    hub.faults.cutting, hub.faults.cuts = "/resolve/", cuts
    code = (
        "import sys, time; time.sleep = lambda _: None; from recaption.shard import source; "
        "source.fetch('hf://datasets/user/set/a.tar', sys.argv[1], 1 << 30, outage_seconds=1)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spool")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if whole:
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "spool").read_bytes() == content
    else:
        assert "ShardError: cannot be read from byte" in result.stderr
