"""Runs that 0.1.0 left halfway, queued, derived or finished (see tests/olden/make.py) go on as they
began."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import Completed, captions, launch, launched, markers, parse_caption, refused, rows
from olden.make import ARCHIVE, FINISHED, HALFWAY, ROOT, content_of, model_folder, never_starting

from recaption import pairs
from recaption.filter import main as filter_run
from recaption.join import main as join
from recaption.report import main as report
from recaption.status import main as status
from recaption.verify import main as verify

pytestmark = pytest.mark.slow

LAUNCHES = 3  # at a time
LEFT_BEHIND = {"leftover journal", "stale temporary"}  # by a task that was killed beside a marker
HELD = ROOT / "keys"  # keeps its leases, which are dead after five seconds
OUTPUTS = [name for name in HALFWAY if name.startswith("outputs/")]
FAKE = [name for name in HALFWAY if name != "tiny"]
CAPTIONS = [name for name in FAKE if name.endswith("captions")]


@dataclass(frozen=True)
class Begun:
    """What a run that was killed had come to."""

    tars: dict[str, tuple[int, bytes]]  # published ones: inode and content
    attempts: set[str]


@dataclass(frozen=True)
class Continued:
    """A run that the same command went on with."""

    before: Begun
    result: Completed


@pytest.fixture(scope="module")
def unpacked() -> Iterator[Path]:
    """The folder that all of it was made in; one process of tests at a time has it."""
    with open(f"{ROOT}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(ROOT, ignore_errors=True)
        with tarfile.open(ARCHIVE) as tar:
            tar.extractall(ROOT.parent, filter="tar")
        for lease in ROOT.glob("**/.recaption/leases/*.json"):
            if HELD not in lease.parents:  # for a minute nobody knows that its holder is gone
                lease.unlink()
        yield ROOT
        shutil.rmtree(ROOT)


@pytest.fixture(scope="module")
def commands(unpacked: Path) -> dict[str, list[str]]:
    """The words of each run's launch, and of the derived one's retry."""
    found: dict[str, list[str]] = json.loads((unpacked / "commands.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def wanted(unpacked: Path) -> dict[str, Any]:
    """Tars and rows of the runs that 0.1.0 made of the same commands, undisturbed."""
    found: dict[str, Any] = json.loads((unpacked / "wanted.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def copies(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs as they were left, for tests that look at them or go on with a copy."""
    folder = tmp_path_factory.mktemp("copies")
    for name in [*HALFWAY, *FINISHED, "again"]:
        shutil.copytree(unpacked / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def continued(copies: Path, commands: dict[str, list[str]]) -> Iterator[Callable[[str], Continued]]:
    """Runs after the same command; a few at a time, since most of it is waiting."""
    before = {name: begun(ROOT / name) for name in FAKE}

    def go_on(name: str) -> Completed:
        cwd = ROOT if name in OUTPUTS else ROOT / "cwd" / name
        cwd.mkdir(parents=True, exist_ok=True)
        return launch(*commands[name], cwd=cwd)

    results: dict[str, Future[Completed]] = {}
    with ThreadPoolExecutor(LAUNCHES) as pool, ThreadPoolExecutor(1) as one_by_one:
        for name in FAKE:
            results[name] = (one_by_one if name in OUTPUTS else pool).submit(go_on, name)
        yield lambda name: Continued(before[name], results[name].result())


def begun(run: Path) -> Begun:
    """What is published of a run, and who has worked on it."""
    tars = {p.name: (p.stat().st_ino, p.read_bytes()) for p in run.glob("*.tar")}
    logs = (run / ".recaption/tasks").glob("*.jsonl")
    return Begun(tars, {p.stem.partition("@")[2] for p in logs})


def looked_at(run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What verify finds in a run, against its sources; AssertionError for a defect."""
    capsys.readouterr()
    code = verify([str(run), "--input", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert not found["defects"], found["defects"]
    assert code == 0
    return found


def inputs_of(run: str) -> list[Any]:
    shards: list[Any] = json.loads((Path(run) / ".recaption/run.json").read_bytes())["shards"]
    return shards


@pytest.mark.parametrize("name", FAKE)
def test_the_same_command_goes_on_and_makes_what_0_1_0_would_have(
    name: str,
    continued: Callable[[str], Continued],
    wanted: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    done, run = continued(name), ROOT / name
    assert done.result.returncode == 0, done.result
    left = len(wanted[name]["tars"]) - len(done.before.tars)
    assert f"{left} of {len(wanted[name]['tars'])} selected shards to do" in done.result.stdout
    for tar, was in done.before.tars.items():
        assert ((run / tar).stat().st_ino, (run / tar).read_bytes()) == was
    assert json.loads(json.dumps(content_of(run))) == wanted[name]
    attempts = [
        {row["attempt"] for row in rows(run, tar)}
        for tar in wanted[name]["tars"]
        if tar not in done.before.tars
    ]
    assert any(found & done.before.attempts for found in attempts), "a journal was not read"
    assert any(found - done.before.attempts for found in attempts)
    if name != "piped":
        looked_at(run, capsys)


def test_a_site_s_preset_by_old_names_holds_and_is_said_once(
    continued: Callable[[str], Continued],
) -> None:
    result = continued("site").result
    assert result.stderr.count("slurm.attempts is now task.attempts") == 1
    *_, last = sorted((ROOT / "site/.recaption/submissions").iterdir())
    task = json.loads(last.read_bytes())["config"]["task"]
    assert (task["attempts"], task["lease_seconds"]) == (4, 6.0)


@pytest.mark.parametrize("name", [*FAKE, "tiny"])
def test_what_is_unfinished_can_be_looked_at(
    name: str, copies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(copies / name)
    assert status([run]) == 1
    capsys.readouterr()
    assert status([run, "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    published = {key: shown["shards"][key] for key in ("total", "done", "failed")}
    assert published == {"total": len(inputs_of(run)), "done": 1, "failed": 0}
    assert (shown["samples"]["in_progress"] > 0) == (name != "tiny")  # that was killed too early
    verify([run, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {defect["kind"] for defect in found["defects"]} <= LEFT_BEHIND
    assert found["shards"] == {"total": published["total"], "published": 1, "given_up": 0}
    assert report([run, "-o", str(tmp_path / "page.html")]) == 0
    assert filter_run([run, "--where", "index < 3", "-o", str(tmp_path / "new")]) == 1
    looked_at(tmp_path / "new", capsys) if name != "piped" else verify([str(tmp_path / "new")])


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_are_joined_with_their_sources(
    name: str,
    continued: Callable[[str], Continued],
    wanted: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert continued(name).result.returncode == 0
    assert join([str(ROOT / name), "-o", str(tmp_path / "full")]) == 0
    looked_at(tmp_path / "full", capsys)
    full = {"captions": "fake", "odd-captions": "odd"}[name]
    assert content_of(tmp_path / "full")["tars"] == wanted[full]["tars"]
    paired = {sample["__key__"]: sample["txt"] for sample in pairs(ROOT / name)}
    assert paired == {key: text.encode() for key, text in captions(tmp_path / "full").items()}


def test_a_copy_goes_on_elsewhere(copies: Path, wanted: dict[str, Any], tmp_path: Path) -> None:
    run = shutil.copytree(copies / "keys", tmp_path / "moved")
    assert launch(str(run), cwd=tmp_path, module="retry").returncode == 0
    assert json.loads(json.dumps(content_of(run))) == wanted["keys"]


def test_a_derived_run_goes_on_by_either_command(
    commands: dict[str, list[str]], copies: Path, wanted: dict[str, Any], tmp_path: Path
) -> None:
    assert launch(*commands["again"], cwd=tmp_path, module="retry").returncode == 0
    assert json.loads(json.dumps(content_of(ROOT / "again"))) == wanted["again"]
    run = shutil.copytree(copies / "again", tmp_path / "moved")
    assert launch(str(run), cwd=tmp_path, module="retry").returncode == 0
    assert json.loads(json.dumps(content_of(run))) == wanted["again"]


def test_a_finished_run_stays_as_it_is(
    commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = begun(ROOT / "done")
    result = launched(*commands["done"], cwd=tmp_path)
    assert "nothing to do" in result.stdout
    assert begun(ROOT / "done") == before
    looked_at(ROOT / "done", capsys)
    looked_at(ROOT / "filtered", capsys)
    again = [
        str(ROOT / "done"),
        "--where",
        "tokens > 1 and index != 2",
        "-o",
        str(ROOT / "filtered"),
    ]
    assert filter_run(again) == 0


def test_a_failed_shard_is_tried_again(commands: dict[str, list[str]], tmp_path: Path) -> None:
    for result in (
        launch(*commands["failed"], cwd=tmp_path),
        launch(str(ROOT / "failed"), cwd=tmp_path, module="retry"),
    ):
        assert result.returncode == 1
        assert "2 of 4 shards published" in result.stdout
        assert "b.tar: cut inside member" in result.stderr
        assert "c.tar: member 'l1.jpg'" in result.stderr


def test_a_failed_shard_may_be_salvaged(
    copies: Path,
    commands: dict[str, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """data.damaged is in the identity of such a run, which stays as it is stored."""
    run = shutil.copytree(copies / "failed", tmp_path / "run")
    frozen = (run / ".recaption/run.json").read_bytes()
    launched(str(run), "data.damaged=salvage", cwd=tmp_path, module="retry")
    assert (run / ".recaption/run.json").read_bytes() == frozen
    here = [w for w in commands["failed"] if not w.startswith("output.dir")]
    assert "nothing to do" in launched(*here, f"output.dir={run}", cwd=tmp_path).stdout
    looked_at(run, capsys)


def test_a_queued_task_runs_as_submitit_starts_it(
    unpacked: Path, wanted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = unpacked / "queued"
    for task in ("0", "1"):
        of_slurm = {"SLURM_JOB_ID": f"471{task}", "SLURM_ARRAY_JOB_ID": "4711"}
        of_slurm |= {"SLURM_ARRAY_TASK_ID": task, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
        of_slurm |= {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
        words = [sys.executable, "-u", "-m", "submitit.core._submit", str(run / ".recaption/logs")]
        result = subprocess.run(
            words, env={**os.environ, "SUBMITIT_EXECUTOR": "slurm", **of_slurm}, capture_output=True
        )
        assert result.returncode == 0, result
    assert content_of(run)["tars"] == wanted["fake"]["tars"]
    assert {m["task"] for m in markers(run).values()} <= {0, 1}
    looked_at(run, capsys)


def test_a_retry_names_what_was_not_stored(copies: Path, unpacked: Path, tmp_path: Path) -> None:
    run = shutil.copytree(unpacked / "queued", tmp_path / "run")
    shutil.rmtree(run / ".recaption/shards")
    (run / ".recaption/shards").mkdir()
    refused(launch(str(run), cwd=tmp_path, module="retry"), "slurm.setup", "not stored")


def test_a_model_of_ones_own_that_was_composed_over_the_tiny_one_goes_on(
    unpacked: Path, commands: dict[str, list[str]], tmp_path: Path
) -> None:
    shutil.copytree(model_folder(), unpacked / "models/own")
    frozen = json.loads((unpacked / "own-model/.recaption/run.json").read_bytes())
    with never_starting():
        result = launched(*commands["own-model"], "dry_run=true", cwd=tmp_path)
    assert f"fingerprint: {frozen['fingerprint']}" in result.stdout


def test_a_run_that_took_the_tiny_model_for_another_one_is_refused(
    unpacked: Path, commands: dict[str, list[str]], tmp_path: Path
) -> None:
    run = unpacked / "no-such-model"
    with never_starting():
        for result in (
            launch(*commands["no-such-model"], cwd=tmp_path),
            launch(str(run), cwd=tmp_path, module="retry"),
        ):
            refused(result, "OWNER/NAME", "tiny model")
    assert len(list((run / ".recaption/submissions").iterdir())) == 1


def test_a_damaged_shard_of_a_run_that_failed_can_be_salvaged(
    copies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(copies / "failed", tmp_path / "run")
    result = launch(str(run), "data.damaged=salvage", cwd=tmp_path, module="retry")
    assert result.returncode == 0, result
    assert looked_at(run, capsys)["shards"]["published"] == 4


def test_inputs_that_moved_are_read_where_they_are(
    copies: Path, unpacked: Path, wanted: dict[str, Any], tmp_path: Path
) -> None:
    run = shutil.copytree(copies / "listed", tmp_path / "run")
    moved = shutil.copytree(unpacked / "sets/plain", tmp_path / "moved")
    hidden = unpacked / "sets/plain"
    hidden.rename(unpacked / "away")
    try:
        assert launch(str(run), cwd=tmp_path, module="retry").returncode != 0
        result = launch(str(run), "--inputs", f"{moved}/*.tar", cwd=tmp_path, module="retry")
        assert result.returncode == 0, result
        assert launch(str(run), "--input", cwd=tmp_path, module="verify").returncode == 1
        words = (str(run), "--input", "--inputs", f"{moved}/*.tar")
        assert launch(*words, cwd=tmp_path, module="verify").returncode == 0
    finally:
        (unpacked / "away").rename(hidden)
    assert json.loads(json.dumps(content_of(run))) == wanted["listed"]


def test_a_field_that_is_not_known_is_said_by_name(
    copies: Path, commands: dict[str, list[str]], tmp_path: Path
) -> None:
    run = shutil.copytree(copies / "site", tmp_path / "run")
    record = run / ".recaption/run.json"
    known = json.loads(record.read_bytes())
    record.write_text(json.dumps({**known, "flavor": "sweet"}))
    words = [w for w in commands["site"] if not w.startswith("output.dir")]
    result = launch(*words, f"output.dir={run}", cwd=tmp_path)
    warned, said = result.stderr.splitlines()[:-1], result.stderr.splitlines()[-1]
    assert result.returncode == 2
    assert all("the old name still works" in line for line in warned), result
    refused(Completed(result.args, 2, result.stdout, said), "run.json", "flavor")
    for command in ("status", "verify", "retry"):
        refused(launch(str(run), cwd=tmp_path, module=command), "run.json", "flavor")
    record.write_text(json.dumps(known))
    first = run / ".recaption/submissions/0.json"
    submission = json.loads(first.read_bytes())
    submission["config"]["sampling"]["spice"] = 1
    first.write_text(json.dumps(submission))
    refused(launch(str(run), cwd=tmp_path, module="retry"), "submissions/0.json", "spice")


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_the_tiny_model_goes_on(
    copies: Path, commands: dict[str, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = ROOT / "tiny"
    before = begun(run)
    launched(*commands["tiny"], cwd=tmp_path, timeout=500)
    for tar, was in before.tars.items():
        assert ((run / tar).stat().st_ino, (run / tar).read_bytes()) == was
    found = looked_at(run, capsys)
    assert found["samples"] == 24
    said = [row for tar in markers(run) for row in rows(run, tar)]
    assert {row["status"] for row in said} == {"captioned"}
    assert all(parse_caption(row["caption"]).names for row in said)
    assert len({row["attempt"] for row in said}) == 2
    assert re.search(
        r"tiny", json.loads((run / ".recaption/run.json").read_bytes())["model"]["name"]
    )
