"""`recaption.retry`: what is missing in place, and some samples again in a new run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawing import EXTENSIONS, Sample, write_shard, write_shards
from helpers import (
    Completed,
    assert_same_samples,
    captions,
    files_of,
    launch,
    launched,
    markers,
    read_shard,
    refused,
    rows,
)

from recaption.run.paths import RunPaths
from recaption.run.record import read_submission, write_submission

SUBMISSIONS = ".recaption/submissions"


def retry(*words: str, cwd: Path) -> Completed:
    return launch(*words, cwd=cwd, module="retry")


def retried(*words: str, cwd: Path) -> Completed:
    result = retry(*words, cwd=cwd)
    assert result.returncode == 0, result
    return result


def verified(run: Path) -> None:
    result = launch(str(run), "--input", cwd=run.parent, module="verify")
    assert result.returncode == 0, result


def submission(run: Path, number: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / SUBMISSIONS / f"{number}.json").read_bytes())
    return record


def contents(folder: Path) -> dict[str, bytes]:
    return files_of(folder)


@pytest.fixture
def source(tmp_path: Path) -> dict[str, list[Sample]]:
    return dict(write_shards(tmp_path / "in", 4, 6, side=128, plain=True))


def test_missing_shards_are_made_in_place(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    shard = tmp_path / "in/00002.tar"
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[0] ^= 0xFF
    shard.write_bytes(damaged)
    words = (f"data.shards={tmp_path}/in/*.tar", "engine=fake", "output.dir=run")
    assert launch(*words, "data.max_samples=5", "slurm.tasks=2", cwd=tmp_path).returncode == 1
    run = tmp_path / "run"
    before = {n: c for n, c in contents(run).items() if not n.startswith(".recaption/tasks")}
    still = retry("run", cwd=tmp_path)
    assert still.returncode == 1
    assert "00002.tar" in still.stderr
    shard.write_bytes(whole)
    words = ("slurm.tasks=1", "engine.max_num_seqs=3", "slurm.attempts=3", "task.steal=false")
    result = retried("run", *words, cwd=tmp_path)
    assert result.stderr.count("slurm.attempts is now task.attempts") == 1
    assert "1 of 4 selected shards to do, 1 tasks" in result.stdout
    assert list(markers(run)) == list(source)
    assert all(m["samples"] == 5 for m in markers(run).values())
    after = contents(run)
    for name in before:
        if name.endswith((".tar", ".parquet")) or name.startswith(".recaption/shards"):
            assert after[name] == before[name]
    assert submission(run, 2)["config"]["engine"]["max_num_seqs"] == 3
    assert submission(run, 2)["config"]["data"]["max_samples"] == 5
    task = submission(run, 2)["config"]["task"]
    assert (task["attempts"], task["steal"]) == (3, False)
    verified(run)
    again = retried("run", cwd=tmp_path)
    assert "nothing to do" in again.stdout
    assert not (run / SUBMISSIONS / "3.json").exists()


def test_the_range(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    """Without data.range, what any submission selected; another one can be given.

    A launch that was withdrawn leaves no keys behind.
    """
    run = tmp_path / "run"
    words = (f"data.shards={tmp_path}/in/*.tar", "engine=fake", "output.dir=run")
    launched(*words, "data.range=0-1", cwd=tmp_path)
    assert "nothing to do" in retried("run", cwd=tmp_path).stdout
    retried("run", "data.range=3", cwd=tmp_path)
    assert list(markers(run)) == ["00000.tar", "00001.tar", "00003.tar"]
    (run / ".recaption/shards/00000.json").unlink()
    last = read_submission(RunPaths(run), 1)
    task = {**last.config["task"], "attempts": 9}
    withdrawn = replace(last, slices=[], config={**last.config, "task": task})
    assert write_submission(RunPaths(run), withdrawn, "t").number == 2
    retried("run", cwd=tmp_path)
    assert submission(run, 3)["config"]["task"] == last.config["task"]
    assert list(markers(run)) == ["00000.tar", "00001.tar", "00003.tar"]
    retried("run", "data.range=0-", cwd=tmp_path)
    assert list(markers(run)) == list(source)
    assert_same_samples(run, source)
    moved = tmp_path / "moved"
    run.rename(moved)
    assert "nothing to do" in retried("moved", cwd=tmp_path).stdout


def test_an_input_of_another_size_is_refused_by_the_key_that_named_it(
    source: dict[str, list[Sample]], tmp_path: Path
) -> None:
    here = f"{tmp_path}/in/*.tar"
    launched(f"data.shards={here}", "engine=fake", "output.dir=run", "data.range=0", cwd=tmp_path)
    with (tmp_path / "in/00001.tar").open("ab") as file:
        file.write(bytes(512))
    refused(retry("run", "--inputs", here, cwd=tmp_path), "--inputs: 00001.tar: the run was made")
    word = f"data.shards={here}"
    refused(retry("run", word, cwd=tmp_path), "data.shards: 00001.tar: the run was made")


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("sampling.max_tokens=3", "sampling.max_tokens"),
        ("prompt.text=Another", "prompt.text"),
        ("prompt=detailed", "prompt.name"),
        ("model.max_pixels=64", "model.max_pixels"),
        ("data.max_samples=2", "data.max_samples"),
        ("output.text=keep", "output.text"),
        ("output.dir=elsewhere", "output.dir"),
        ("engine.rat=1", "did you mean rate"),
        ("task.attempt=1", "did you mean attempts"),
        ("slurm=nothing", "local"),
        ("engine.max_num_seqs=none", "engine.max_num_seqs"),
        ("slurm.tasks=0", "slurm.tasks"),
        ("other", "run directory"),
        ("--status=odd", "rejected"),
        ("--status=failed", "-o"),
        ("--reson=x", "--reason"),
        ("--status=rejected -o=s3://bucket/new", "-o=s3://bucket/new: must be a folder"),
        ("--status=rejected -o=new%j", "output.dir"),
        ("--status=rejected -o=new quality.repeats=3 quality.flags=[empty]", "quality.repeats=3"),
    ],
)
def test_what_a_retry_refuses(finished: Path, word: str, named: str) -> None:
    before = contents(finished)
    refused(retry(str(finished), *word.split(), cwd=finished.parent), named)
    assert contents(finished) == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four shards; the second has two bad images and a sample without one."""
    folder = tmp_path_factory.mktemp("finished")
    made = write_shards(folder / "in", 4, 6, side=128, plain=True)
    bad = made["00001.tar"]
    for i in (0, 3):
        broken = {e: b"broken" if e in EXTENSIONS else c for e, c in bad[i].members.items()}
        bad[i] = Sample(bad[i].key, broken)
    bad[4] = Sample(bad[4].key, {"txt": b"no picture"})
    write_shard(folder / "in/00001.tar", bad)
    words = (f"data.shards={folder}/in/*.tar", "engine=fake", "output.dir=run")
    launched(*words, "engine.salt=random", cwd=folder)
    return folder / "run"


def test_a_new_run_by_status(finished: Path, tmp_path: Path) -> None:
    """Other captions are drawn at random, so whatever is kept is the parent's."""
    before = contents(finished)
    words = (str(finished), "--status", "captioned", "-o", "new", "sampling.max_tokens=99")
    shutil.copy(finished / "00001.tar", tmp_path)
    result = retried(*words, cwd=tmp_path)
    assert contents(finished) == before
    new = tmp_path / "new"
    assert "0 shards linked; 21 samples of 4 shards to do again" in result.stdout
    assert not set(captions(finished).values()) & set(captions(new).values())
    kept = [i for i, row in enumerate(rows(finished, "00001.tar")) if row["status"] == "rejected"]
    assert kept == [0, 3, 4]
    for i in kept:
        assert rows(new, "00001.tar")[i] == rows(finished, "00001.tar")[i]
    verified(new)


@pytest.mark.parametrize("change", [(), ("image.max_aspect=40",)])
def test_a_new_run_by_reason(finished: Path, tmp_path: Path, change: tuple[str, ...]) -> None:
    before = contents(finished)
    words = (str(finished), "--status", "rejected", "failed", "--reason", "not a jpeg", "-o", "new")
    result = retried(*words, *change, cwd=tmp_path)
    assert "3 shards linked; 2 samples of 1 shards to do again" in result.stdout
    assert contents(finished) == before
    new = tmp_path / "new"
    assert captions(new) == captions(finished)
    frozen, parent = (json.loads((r / ".recaption/run.json").read_bytes()) for r in (new, finished))
    assert frozen["parent"]["fingerprint"] == parent["fingerprint"]
    assert frozen["parent"]["run"] == str(finished)
    assert (frozen["fingerprint"] != parent["fingerprint"]) == bool(change)
    for name in ("00000", "00002", "00003"):
        for place in (f"{name}.tar", f".recaption/shards/{name}.parquet"):
            assert (new / place).samefile(finished / place)
        assert markers(new)[f"{name}.tar"]["fingerprint"] == frozen["fingerprint"]
    assert not (new / "00001.tar").samefile(finished / "00001.tar")
    old, again = rows(finished, "00001.tar"), rows(new, "00001.tar")
    assert [i for i in range(6) if old[i] != again[i]] == [0, 3]
    assert again[0]["attempt"] != old[0]["attempt"]
    verified(new)
    status = launch(str(new), "--json", cwd=tmp_path, module="status")
    assert status.returncode == 0
    assert json.loads(status.stdout)["samples"]["captioned"] == 21
    assert (new / "sizes.json").read_bytes() == (finished / "sizes.json").read_bytes()
    assert "nothing to do" in retried(*words, *change, cwd=tmp_path).stdout
    other = (str(finished), "--status", "captioned", "-o", "new")
    refused(retry(*other, *change, cwd=tmp_path), "another run")


def test_a_new_run_with_several_prompts(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    broken = [
        Sample(s.key, {"jpg": b"x"}) if i == 2 else s for i, s in enumerate(source["00000.tar"])
    ]
    write_shard(tmp_path / "in/00000.tar", broken)
    words = (f"data.shards={tmp_path}/in/*.tar", "engine=fake", "output.dir=run")
    launched(*words, "prompts=[short,detailed]", "engine.salt=random", cwd=tmp_path)
    retried("run", "--status", "rejected", "-o", "new", cwd=tmp_path)
    old, again = rows(tmp_path / "run", "00000.tar"), rows(tmp_path / "new", "00000.tar")
    assert [i for i in range(6) if old[i] != again[i]] == [2]
    assert read_shard(tmp_path / "new/00000.tar") == read_shard(tmp_path / "run/00000.tar")
    verified(tmp_path / "new")


def test_an_interrupted_new_run_goes_on(finished: Path, tmp_path: Path) -> None:
    words = (str(finished), "--reason", "not a JPEG", "-o", "new")
    retried(*words, cwd=tmp_path)
    new = tmp_path / "new"
    whole = captions(new)
    for name in ("00001", "00002", "00003"):
        (new / f".recaption/shards/{name}.json").unlink()
    (new / "00003.tar").unlink()
    retried(*words, cwd=tmp_path)
    assert captions(new) == whole
    verified(new)


def test_what_a_new_run_refuses(finished: Path, tmp_path: Path) -> None:
    words = (str(finished), "--status", "rejected", "-o")
    refused(retry(*words, str(finished), cwd=tmp_path), "itself")
    refused(retry(*words, "new", "data.caption_key=other", cwd=tmp_path), "data.caption_key")
    refused(retry(*words, "new", "prompt=detailed", cwd=tmp_path), "prompt.name")
    shutil.copytree(finished.parent / "in", tmp_path / "tars")
    refused(retry(*words, "tars", cwd=tmp_path), "not a run")
    assert not (tmp_path / "new").exists()
    nothing = retried(str(finished), "--status", "failed", "-o", "new", cwd=tmp_path)
    assert "nothing to do" in nothing.stdout
    assert not (tmp_path / "new").exists()
    dry = retried(*words, "new", "dry_run=true", cwd=tmp_path)
    assert "task 0: 1 shards: 00001.tar" in dry.stdout
    assert not (tmp_path / "new").exists()


def test_secrets_are_asked_for_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """slurm.setup is not stored; a retry neither forgets it silently nor needs its value."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in {
        "sbatch": 'cp "$1" "$BATCH"; echo \'Submitted batch job 77\'',
        "srun": "exit 0",
        "scontrol": "echo 'MaxArraySize = 1001'",
        "squeue": "echo '77|PENDING||Priority'",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    batch = tmp_path / "batch.sh"
    monkeypatch.setenv("BATCH", str(batch))
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    (tmp_path / "site/slurm").mkdir(parents=True)
    preset = "kind: cluster\npartition: mine\nsetup: ['export TOKEN=hush']\n"
    (tmp_path / "site/slurm/mysite.yaml").write_text(preset)
    site = (f"--config-dir={tmp_path}/site", "slurm=mysite")
    shards = f"data.shards={finished.parent}/in/*.tar"
    launched(shards, "engine=fake", "output.dir=run", *site, cwd=tmp_path)
    assert "hush" in batch.read_text()
    batch.unlink()
    refused(retry("run", cwd=tmp_path), "slurm.setup", "--config-dir")
    assert not batch.exists()
    retried("run", *site, "slurm.tasks=1", "force=true", cwd=tmp_path)
    assert "hush" in batch.read_text()
    assert "--partition=mine" in batch.read_text()
    stored = {n: c for n, c in files_of(tmp_path / "run").items() if not n.endswith(".sh")}
    assert not [n for n, c in stored.items() if b"hush" in c]
    status = launch("run", "--json", cwd=tmp_path, module="status")
    assert json.loads(status.stdout)["state"] == "waiting"


def test_pictures_that_the_renderer_refuses_are_rejected_where_there_are_no_others(
    tmp_path: Path,
) -> None:
    """As long as a picture of our own can be prepared."""
    write_shards(tmp_path / "in", 1, 24, side=96, plain=True)
    words = ("data.shards=in/*.tar", "engine=fake")
    launched(*words, "output.dir=plain", cwd=tmp_path)
    poison = dict.fromkeys(list(captions(tmp_path / "plain").values())[:11], "refuse")
    (tmp_path / "presets/engine").mkdir(parents=True)
    preset = json.dumps({"kind": "fake", "poison": poison})
    (tmp_path / "presets/engine/refusing.yaml").write_text(preset)
    words = ("data.shards=in/*.tar", "--config-dir=presets", "engine=refusing")
    launched(*words, "output.dir=run", cwd=tmp_path)
    reason = "cannot be prepared: ValueError: poisoned picture"
    assert [r["reason"] for r in rows(tmp_path / "run", "00000.tar")] == [reason] * 11 + [""] * 13
    result = retried("run", "--status", "rejected", "-o", "again", cwd=tmp_path)
    assert "11 samples of 1 shards to do again" in result.stdout
    assert [r["status"] for r in rows(tmp_path / "again", "00000.tar")].count("rejected") == 11
