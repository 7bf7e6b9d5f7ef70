"""Full shards from captions-only ones: the bytes that a full run of the same captions publishes."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import (
    Completed,
    Made,
    Source,
    files_of,
    launch,
    launched,
    markers,
    refused,
    rows,
)

FAKE = ("engine=fake", "output.mode=captions", "output.dir=run")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Captions:
    """A captions-only run of sources that tests may change, and the full run of the same."""

    folder: Path
    run: Path
    full: Path


@pytest.fixture(scope="module")
def made_once(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("captions")
    shutil.copytree(source.folder, cwd / "in")
    launched(f"data.shards={cwd}/in/*.tar", *FAKE, cwd=cwd)
    return cwd


@pytest.fixture
def small(made_once: Path, made: Made) -> Captions:
    return Captions(made_once / "in", made_once / "run", made.run)


def tars(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.glob("*.tar"))}


def joined(run: Path, cwd: Path, *words: str, code: int = 0) -> Completed:
    result = launch(str(run), "-o", "new", *words, cwd=cwd, module="join")
    assert result.returncode == code, result
    assert "Traceback" not in result.stdout + result.stderr
    return result


def verified(run: Path) -> None:
    result = launch(str(run), "--input", cwd=run.parent, module="verify")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_bytes_of_a_full_run(small: Captions, tmp_path: Path) -> None:
    """Tars, sizes and rows; the record names the parent and is that of a full run otherwise."""
    before = files_of(small.run)
    assert "4 shards joined" in joined(small.run, tmp_path).stdout
    new = tmp_path / "new"
    assert tars(new) == tars(small.full)
    assert len(tars(new)) == 4
    assert (new / "sizes.json").read_bytes() == (small.full / "sizes.json").read_bytes()
    assert (new / "README.md").read_text() == (small.full / "README.md").read_text()
    for name, marker in markers(new).items():
        assert rows(new, name) == rows(small.run, name)
        assert marker["tar"] == markers(small.full)[name]["tar"]
        assert marker["counts"] == markers(small.full)[name]["counts"]
    record = json.loads((new / ".recaption/run.json").read_bytes())
    assert record["parent"]["run"] == str(small.run)
    assert record["parent"]["command"] == "join"
    assert record["identity"]["output.mode"] == "full"
    verified(new)
    assert files_of(small.run) == before
    made = files_of(new)
    assert "0 shards joined" in joined(small.run, tmp_path).stdout
    assert {k: v for k, v in files_of(new).items() if "tasks" not in k} == {
        k: v for k, v in made.items() if "tasks" not in k
    }


def test_several_prompts_kept_text_and_compressed_sources(source: Source, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in source.folder.glob("*.tar"):
        (tmp_path / f"in/{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    words = (f"data.shards={tmp_path}/in/*.gz", "engine=fake", "output.text=keep")
    words += ("prompts=[short,detailed]", "data.max_samples=7")
    launched(*words, "output.dir=full", cwd=tmp_path)
    launched(*words, "output.dir=run", "output.mode=captions", cwd=tmp_path)
    (tmp_path / "spool").mkdir()
    joined(tmp_path / "run", tmp_path, "--spool", "spool")
    assert tars(tmp_path / "new") == tars(tmp_path / "full")
    assert not list((tmp_path / "spool").iterdir())
    verified(tmp_path / "new")


def test_what_was_filtered_stays_out_and_the_result_is_filtered_again(
    small: Captions, tmp_path: Path
) -> None:
    words = (str(small.run), "--where", "width > 140", "-o", "some")
    assert launch(*words, cwd=tmp_path, module="filter").returncode == 0
    joined(tmp_path / "some", tmp_path)
    words = (str(small.full), "--where", "width > 140", "-o", "wanted")
    assert launch(*words, cwd=tmp_path, module="filter").returncode == 0
    assert tars(tmp_path / "new") == tars(tmp_path / "wanted") != tars(small.full)
    assert "`width > 140`" in (tmp_path / "new/README.md").read_text()
    verified(tmp_path / "new")
    words = (str(tmp_path / "new"), "--where", "height > 140", "-o", "less")
    assert launch(*words, cwd=tmp_path, module="filter").returncode == 0
    verified(tmp_path / "less")


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("00001.tar", lambda c: c[:-9000], "00001.tar"),
        ("00001.tar", None, "No such file"),
        ("odd.tar", lambda c: c.replace(b"only text", b"0nly text"), "no_image"),
        ("odd.tar", lambda c: c.replace(b"from json", b"from JSON"), "from_json"),
        ("00002.tar", lambda c: c[:-2048] + b"x" + c[-2047:], "00002.tar"),
        ("00000.tar", "swap", "input changed"),
        ("00000.tar", "picture", "the image of"),
    ],
)
def test_another_source_is_refused_by_name(
    small: Captions, name: str, change: object, named: str, tmp_path: Path
) -> None:
    """The others are joined; when the source is back, so is its shard."""
    path = small.folder / name
    content = path.read_bytes()
    if callable(change):
        assert change(content) != content
        path.write_bytes(change(content))
    elif change == "swap":
        shutil.copy(small.folder / "00001.tar", path)
    elif change == "picture":
        place = content.index(b"\xff\xd8\xff") + 400 if b"\xff\xd8\xff" in content else 2000
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:
        path.unlink()
    try:
        result = joined(small.run, tmp_path, code=1)
        lines = [line for line in result.stderr.splitlines() if line]
        assert len(lines) == 1, lines
        assert f"{name}: " in lines[0]
        assert named in lines[0]
        assert "3 shards joined" in result.stdout
        assert sorted(markers(tmp_path / "new")) == sorted(set(tars(small.full)) - {name})
        assert not (tmp_path / "new" / name).exists()
        assert not (tmp_path / "new/sizes.json").exists()
    finally:
        path.write_bytes(content)
    assert "1 shards joined" in joined(small.run, tmp_path).stdout
    assert tars(tmp_path / "new") == tars(small.full)


def test_what_is_missing_or_wrong_in_a_joined_run(small: Captions, tmp_path: Path) -> None:
    joined(small.run, tmp_path)
    new = tmp_path / "new"
    (new / "00000.tar").unlink()
    (new / ".recaption/shards/00001.json").unlink()
    (new / "00002.tar").write_bytes(b"short")
    (new / ".recaption/shards/odd.json").unlink()
    (new / ".recaption/shards/odd.parquet").unlink()
    result = joined(small.run, tmp_path, code=1)
    assert "00002.tar exists and is not this run's; move it away" in result.stderr
    assert "3 shards joined" in result.stdout
    (new / "00002.tar").unlink()
    joined(small.run, tmp_path)
    assert tars(new) == tars(small.full)
    verified(new)


@pytest.mark.parametrize(
    "step", ["written", "synced:2", "linked", "linked:4", "published:3", "in-tar:20", "described"]
)
def test_killed_at_a_step_and_started_again(small: Captions, step: str, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-m", "recaption.join", str(small.run), "-o", "new"],
        cwd=tmp_path,
        env={**os.environ, "RECAPTION_CRASH_AT": step},
        start_new_session=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    joined(small.run, tmp_path)
    assert tars(tmp_path / "new") == tars(small.full)
    verified(tmp_path / "new")


def test_a_parent_that_lacks_shards(small: Captions, tmp_path: Path) -> None:
    shutil.copytree(small.run, tmp_path / "part")
    marker = tmp_path / "part/.recaption/shards/00002.json"
    content = marker.read_bytes()
    marker.unlink()
    result = joined(tmp_path / "part", tmp_path, code=1)
    assert "1 shards are not published" in result.stdout
    marker.write_bytes(content)
    joined(tmp_path / "part", tmp_path)
    assert tars(tmp_path / "new") == tars(small.full)


def test_mistakes(small: Captions, tmp_path: Path) -> None:
    def wrong(*words: str) -> Completed:
        return launch(*words, cwd=tmp_path, module="join")

    refused(wrong(str(small.full), "-o", "x"), "output.mode=captions")
    refused(wrong(str(small.run)), "-o", "--help")
    refused(wrong(str(small.run), "-o", str(small.run)), "is the run itself")
    refused(wrong(str(small.run), "-o", str(small.folder)), "00000.tar")
    refused(wrong(str(small.run), "-o", str(small.full)), "another run")
    refused(wrong(str(small.run), "--spol", "x", "-o", "x"), "did you mean --spool?")
    refused(wrong(str(small.run), "--spool", "/dev/null/x", "-o", "x"), "--spool: ", "/dev/null/x")
    refused(wrong(str(tmp_path), "-o", "x"), "not a run directory")
    assert not (tmp_path / "x").exists()
