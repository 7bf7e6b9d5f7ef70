"""Runs of other people and in other places: modes and groups of files, users without a right to them,
copies that lack empty folders."""

from __future__ import annotations

import grp
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import captions, launch, launched, markers, refused

from recaption.filter import main as filter_run
from recaption.join import main as join

NOBODY = 65534
Outcome = tuple[int, str, str]
ALONE = """\
import contextlib, io, json, os, sys
from recaption.__main__ import _dispatch, run

def outcome(words):
    sys.argv[1:] = words
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(_dispatch)
        except SystemExit as e:
            return e.code, out.getvalue(), err.getvalue()

before, commands, user = json.loads(sys.argv[1])
for words in before:  # imports all that they need, which may lie in a folder of root's
    outcome(words)
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
json.dump([outcome(words) for words in commands], sys.stdout)
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody gets to, unlike pytest's, with two shards in `set`."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        write_shards(Path(folder) / "set", 2, 4, side=128, plain=True)
        yield Path(folder)


def as_nobody(cwd: Path, *commands: list[str], before: list[list[str]]) -> list[Outcome]:
    """Commands as another user, after others as root: exit code, output and errors of each."""
    words = [sys.executable, "-c", ALONE, json.dumps([before, commands, NOBODY])]
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result
    return [(code, out, err) for code, out, err in json.loads(result.stdout)]


def one_message(outcome: Outcome, *named: str) -> None:
    """Assert that a command only said that something is not permitted."""
    code, _, err = outcome
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert (code, len(lines)) == (2, 1), outcome
    assert "ermission denied" in lines[0]
    for name in named:
        assert name in lines[0]


def modes(run: Path) -> tuple[set[int], set[int]]:
    """Modes of all files, and of all folders."""
    paths = [run, *run.rglob("*")]
    found = [(p.is_dir(), stat.S_IMODE(p.stat().st_mode) & 0o777) for p in paths]
    return {m for folder, m in found if not folder}, {m for folder, m in found if folder}


WORDS = ("data.shards=set/*.tar", "engine=fake", "output.dir=run")


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o002, 0o664, 0o775), (0o077, 0o600, 0o700)])
def test_files_heed_the_umask(mask: int, file: int, folder: int, place: Path) -> None:
    with umask(mask):
        launched(*WORDS, "output.mode=captions", cwd=place)
        assert filter_run([str(place / "run"), "--where", "index > 0", "-o", f"{place}/few"]) == 0
        assert join([str(place / "run"), "-o", f"{place}/full"]) == 0
    for run in ("run", "few", "full"):
        assert modes(place / run) == ({file}, {folder}), run


@as_root
def test_a_runs_files_belong_to_its_group(place: Path) -> None:
    first, second = [g for g in grp.getgrall() if g.gr_gid not in (0, NOBODY)][:2]
    with umask(0o007):
        launched(*WORDS, f"output.group={first.gr_name}", "data.range=0", cwd=place)
        entries = [place / "run", *place.rglob("run/**/*")]
        assert {p.stat().st_gid for p in entries} == {first.gr_gid}
        assert modes(place / "run") == ({0o660}, {0o770})
        launched(*WORDS, f"output.group={second.gr_name}", cwd=place)
    assert (place / "run/00000.tar").stat().st_gid == first.gr_gid
    assert (place / "run/00001.tar").stat().st_gid == second.gr_gid


@as_root
def test_what_is_made_from_a_run_belongs_to_its_group(place: Path) -> None:
    """Where its maker is in that group; nobody is in none."""
    group = next(g for g in grp.getgrall() if g.gr_gid not in (0, NOBODY))
    words = (f"output.group={group.gr_name}", "output.mode=captions")
    launched(*WORDS, *words, cwd=place)
    run = str(place / "run")
    few = ["filter", run, "--where", "index > 0", "-o"]
    assert filter_run([*few[1:], f"{place}/few"]) == 0
    assert join([f"{place}/few", "-o", f"{place}/full"]) == 0
    for made in ("few", "full"):
        assert {p.stat().st_gid for p in [place / made, *place.rglob(f"{made}/**/*")]} == {
            group.gr_gid
        }, made
    (place / "theirs").mkdir()
    os.chmod(place / "theirs", 0o777)
    ((code, _, err),) = as_nobody(place, [*few, f"{place}/theirs/few"], before=[[*few, "ours"]])
    assert code == 0, err
    assert f"belongs to group {group.gr_name}" in err


@as_root
def test_a_group_that_cannot_be_given_is_refused(place: Path) -> None:
    refused(launch(*WORDS, "output.group=nosuch", cwd=place), "output.group=nosuch", "yours are")
    os.chmod(place, 0o777)
    words = ["launch", *WORDS, "output.group=root"]
    ((code, _, err),) = as_nobody(place, words, before=[[*words, "dry_run=true"]])
    assert code == 2, err
    assert "output.group=root" in err
    assert len(err.splitlines()) == 1


@as_root
def test_another_user_gets_one_message(place: Path) -> None:
    with umask(0o022):
        launched(*WORDS, "data.range=0", cwd=place)
    run = str(place / "run")
    (place / "theirs").mkdir()
    os.chmod(place / "theirs", 0o777)

    def readable(output: str) -> list[list[str]]:
        few = ["filter", run, "--where", "index > 0", "-o", f"{place}/{output}"]
        return [["status", run], ["verify", run], few]

    before = [*readable("ours"), ["retry", run, "dry_run=true"], ["launch", *WORDS, "dry_run=true"]]
    before += [["report", run, "-o", f"{place}/ours.html"], ["join", run, "-o", f"{place}/joined"]]
    before += [["upload", run, "s3://b/p"]]
    writing = [["retry", run, "data.range=1"], ["launch", *WORDS]]
    looked = as_nobody(place, *readable("theirs/few"), *writing, before=before)
    assert [code for code, _, _ in looked[:3]] == [1, 0, 1], looked
    for outcome in looked[3:]:
        one_message(outcome, "run/.recaption")

    (place / "run/.recaption/shards/00000.json").chmod(0o600)
    (outcome,) = as_nobody(place, ["verify", run], before=before)
    one_message(outcome, "00000.json")
    (place / "run").chmod(0o700)
    others = [["report", run, "-o", "/tmp/x.html"], ["join", run, "-o", "/tmp/x"]]
    others += [["upload", run, "s3://b/p"], *writing, *readable("theirs/other")]
    for outcome in as_nobody(place, *others, before=before):
        one_message(outcome, "run/.recaption/run.json")


def test_a_copy_without_empty_folders_goes_on(place: Path) -> None:
    launched(*WORDS, "data.range=0", cwd=place)
    copies = {name: shutil.copytree(place / "run", place / name) for name in ("synced", "uploaded")}
    for folder in ("logs", "submissions", "tasks"):
        shutil.rmtree(copies["uploaded"] / ".recaption" / folder)
    for copy in copies.values():
        for folder in sorted(copy.rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        assert not (copy / ".recaption/journal").exists()
        for command, code in {"status": 1, "verify": 0}.items():
            assert launch(str(copy), cwd=place, module=command).returncode == code
    retried = launch(str(copies["synced"]), "data.range=0-1", cwd=place, module="retry")
    assert retried.returncode == 0, retried
    launched(*WORDS[:-1], "output.dir=uploaded", cwd=place)
    for copy in copies.values():
        assert len(captions(copy)) == 8
        assert len(markers(copy)) == 2
        assert launch(str(copy), "--input", cwd=place, module="verify").returncode == 0
