"""A user's mistakes: one line that names what is wrong, exit code 2, nothing written."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drawing import write_shard, write_shards
from helpers import (
    Completed,
    Made,
    Process,
    Source,
    assert_same_samples,
    captions,
    launch,
    launched,
    markers,
    refused,
    rows,
    started,
)
from tars import plain_members, tar_bytes

Launch = Callable[..., Completed]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["data.shards"]),
        (["data.shards=/nowhere/x.tar"], ["data.shards=/nowhere/x.tar", "no such shard"]),
        (["data.shards=/nowhere/{0..9}.tar"], ["/nowhere/0.tar", "9 more"]),
        (["data.shards="], ["data.shards"]),
        (["data.shards=null"], ["data.shards: needed"]),
        (["data.shards=/nowhere/*.tar"], ["data.shards=/nowhere/*.tar", "matches no file"]),
        (["data.shards=/nowhere/list.txt"], ["data.shards=/nowhere/list.txt"]),
        (["{good}", "data.shards=x"], ["data.shards", "twice"]),
        (["{good}", "data.range=7"], ["data.range=7", "there are 1 shards"]),
        (["{good}", "data.range=a-b"], ["data.range=a-b"]),
        (["{good}", "model=huge"], ["model=huge", "tiny", "qwen3-vl-8b"]),
        (["{good}", "prompt=shorts"], ["prompt=shorts", "short"]),
        (["{good}", "prompts=[short,longer]"], ["longer", "detailed"]),
        (["{good}", "prompts=[]"], ["prompts"]),
        (["{good}", "prompts=[short]", "prompt=detailed"], ["prompts", "prompt"]),
        (["{good}", "prompts=[short,short]"], ["prompts", "short"]),
        (["{good}", "prompt.text={unknown}"], ["prompt.text", "{unknown}", "{caption}"]),
        (["{good}", "prompt.text={"], ["prompt.text", "{{"]),
        (["{good}", "prompt.system={json}"], ["prompt.system", "{json.FIELD}"]),
        (["{good}", "data.shard=x"], ["data.shard", "shards"]),
        (["{good}", "datas.shards=x"], ["datas", "data"]),
        (["{good}", "data.tries=often"], ["data.tries", "often"]),
        (["{good}", "slurm.tasks=0"], ["slurm.tasks=0"]),
        (["{good}", "slurm.time=99999999"], ["slurm.time=99999999", "30 days"]),
        (["{good}", "data.name"], ["data.name", "KEY=VALUE"]),
        (["{good}", "--fast"], ["--fast", "--multirun"]),
        (["{good}", "--cfg"], ["--cfg"]),
        (["{good}", "--cfg=hydra"], ["--cfg", "job"]),
        (["{good}", "--config-dir", "nowhere"], ["--config-dir", "nowhere"]),
        (["{good}", "--config-name", "nothing"], ["nothing"]),
        (["{good}", "output.dir=/proc/x/run"], ["output.dir=/proc/x/run"]),
        (["{good}", "output.dir=/dev/null/run"], ["output.dir=/dev/null/run"]),
        (["{good}", "output.dir="], ["output.dir"]),
        (["{good}", "output.dir=${nope}"], ["output.dir"]),
        (["{good}", "engine=vllm", "model.name=x", "model.path=/nowhere"], ["model.path=/nowhere"]),
        (
            ["{good}", "engine=vllm", "model.name=x", "model.path=."],
            ["model.path=/", "config.json"],
        ),
        (["{good}", "model.chat_template=/nowhere"], ["model.chat_template", "/nowhere"]),
        (["{good}", "output.dir=s3://b/run"], ["output.dir=s3://b/run", "recaption.upload"]),
        (["{good}", "output.dir=50%/run"], ["output.dir=", "50%/run"]),
        (["{good}", "watermark.path=/x.onnx"], ["watermark.path=/x.onnx", "watermark=onnx"]),
        (["{good}", "slurm.partition=gpu"], ["slurm.partition=gpu", "slurm=cluster"]),
        (["{good}", "slurm.time=60", "data.range=9"], ["data.range=9"]),
        (["{good}", "data.image_keys=[JPG,png]"], ["data.image_keys", "[jpg,png]"]),
        (["pipe:cat x"], ["pipe:cat x", "KEY=VALUE"]),
        (["data.shards=pipe:cat x"], ["data.allow_pipe=true"]),
        (["data.shards=https://me:secret@host/x.tar"], ["data.shards", "credentials"]),
        (["data.shards=nosuch://host/x.tar"], ["data.shards", "nosuch"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake(
    launch_here: Launch, one_shard: Path, tmp_path: Path, words: list[str], named: list[str]
) -> None:
    filled = [w.replace("{good}", f"data.shards={one_shard}") for w in words]
    engine = () if "engine=vllm" in words else ("engine=fake",)
    refused(launch_here(*engine, *filled, cwd=tmp_path), *named)
    assert not list(tmp_path.iterdir())


def test_a_run_that_exists_only_warns(
    launch_here: Launch, made: Made, source: Source, tmp_path: Path
) -> None:
    shutil.copytree(made.run, tmp_path / "run")
    words = (source.word, "engine=fake", "output.dir=run", "watermark.path=/x.onnx")
    result = launch_here(*words, cwd=tmp_path)
    assert result.returncode == 0, result
    assert "warning: watermark.path=/x.onnx: needs watermark=onnx" in result.stderr


def test_names_that_collide(launch_here: Launch, tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 1, 2, side=128)
    (tmp_path / "in/00000.tar.gz").touch()
    result = launch_here("data.shards=in/*", "engine=fake", "output.dir=run", cwd=tmp_path)
    refused(result, "00000.tar ", "00000.tar.gz")


def test_a_directory_of_inputs(launch_here: Launch, one_shard: Path, tmp_path: Path) -> None:
    words = (f"data.shards={one_shard}", "engine=fake", f"output.dir={one_shard.parent}")
    refused(launch_here(*words, cwd=tmp_path), "output.dir", "input")
    link = tmp_path / "link"
    link.symlink_to(one_shard.parent)
    refused(launch_here(*words[:2], "output.dir=link", cwd=tmp_path), "output.dir", "input")


def test_a_directory_with_foreign_tars(
    launch_here: Launch, one_shard: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/other.tar").write_bytes(b"precious")
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run")
    refused(launch_here(*words, cwd=tmp_path), "output.dir", "other.tar")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["other.tar"]


def test_an_output_that_is_a_file(launch_here: Launch, one_shard: Path, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run")
    refused(launch_here(*words, cwd=tmp_path), "output.dir")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kind: [local\n", ["site.yaml"]),
        ("kind: local\ntaks: 3\n", ["taks"]),
        ("kind: local\ntasks: many\n", ["slurm.tasks", "many"]),
        ("kind: slurm\n", ["slurm.kind=slurm", "cluster"]),
        ("kind: local\ntime: 24:00\n", ["slurm.time=24:00", "24 minutes", "24 hours"]),
        ("tasks: 3\n", ["slurm.kind", "kind: cluster"]),
        ("- a list\n", ["site"]),
        ("kind: local\nsetup: ${nothing}\n", ["nothing"]),
    ],
)
def test_a_preset_of_the_users_own(
    launch_here: Launch, one_shard: Path, tmp_path: Path, text: str, named: list[str]
) -> None:
    (tmp_path / "conf/slurm").mkdir(parents=True)
    (tmp_path / "conf/slurm/site.yaml").write_text(text)
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run", "slurm=site")
    refused(launch_here(*words, "--config-dir", "conf", cwd=tmp_path), *named)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    [
        "defaults:\n  - config\n  - _self_\nwatermark: off\n",
        "defaults:\n  - config\n  - override watermark: off\n  - _self_\n",
    ],
)
def test_a_boolean_that_should_be_off(
    launch_here: Launch, one_shard: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/mine.yaml").write_text(text)
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run")
    options = ("--config-dir", "conf", "--config-name", "mine")
    refused(launch_here(*words, *options, cwd=tmp_path), "'off'")
    right = text.replace("\nwatermark: off", "\nwatermark: {kind: 'off'}").replace(" off", " 'off'")
    (tmp_path / "conf/mine.yaml").write_text(right)
    result = launch_here(*words, *options, "dry_run=true", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_cluster_without_slurm(
    launch_here: Launch, one_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run", "slurm=cluster")
    refused(launch_here(*words, cwd=tmp_path), "slurm=cluster", "sbatch")


def test_a_folder_without_permission(launch_here: Launch, one_shard: Path, tmp_path: Path) -> None:
    """Root may write everywhere, so there it is a read-only file system: /proc."""
    (tmp_path / "locked").mkdir(mode=0o500)
    folder = "/proc" if os.geteuid() == 0 else str(tmp_path / "locked")
    words = (f"data.shards={one_shard}", "engine=fake", f"output.dir={folder}/run")
    refused(launch_here(*words, cwd=tmp_path), f"output.dir={folder}/run")


def test_a_run_directory_of_another_version(
    launch_here: Launch, made: Made, source: Source, tmp_path: Path
) -> None:
    shutil.copytree(made.run, tmp_path / "run")
    frozen = tmp_path / "run/.recaption/run.json"
    text = frozen.read_text()
    assert '"format": 2' in text
    frozen.write_text(text.replace('"format": 2', '"format": 99'))
    words = (source.word, "engine=fake", "output.dir=run")
    refused(launch_here(*words, cwd=tmp_path), "run.json", "version")


def test_unreadable_shards_fail_alone(tmp_path: Path) -> None:
    """Each for a reason of its own; the others are published, and the exit code is 1."""
    source = write_shards(tmp_path / "in", 8, 4, side=128)
    whole = {name: (tmp_path / "in" / name).read_bytes() for name in source}
    good, bad = ["00000.tar", "00007.tar"], [f"0000{i}.tar" for i in range(1, 7)]
    cut, garbage, empty, gzipped, folder, twice = (tmp_path / "in" / name for name in bad)
    cut.write_bytes(whole[cut.name][: len(whole[cut.name]) // 2])
    garbage.write_bytes(random.Random(1).randbytes(5000))
    empty.write_bytes(b"")
    gzipped.write_bytes(gzip.compress(whole[gzipped.name])[:-20])
    folder.unlink()
    folder.mkdir()
    samples = source[twice.name]
    write_shard(twice, [*samples, samples[0]])
    result = launch("data.shards=in/*.tar", "engine=fake", "output.dir=run", cwd=tmp_path)
    assert result.returncode == 1, result
    assert "Traceback" not in result.stderr
    assert "2 of 8 shards published" in result.stdout
    run = tmp_path / "run"
    assert list(markers(run)) == good
    assert_same_samples(run, {name: source[name] for name in good})
    assert [r["status"] for r in rows(run, "00007.tar")] == ["captioned"] * 4
    failures = {p.stem: json.loads(p.read_bytes()) for p in (run / ".recaption/failed").iterdir()}
    assert sorted(failures) == [name.removesuffix(".tar") for name in bad]
    assert {f["tries"] for f in failures.values()} == {2}
    reasons = [failures[name.removesuffix(".tar")]["reason"] for name in bad]
    assert len(set(reasons)) == len(bad), reasons
    assert samples[0].key in reasons[-1]
    assert bad[0] in result.stderr
    assert reasons[0] in result.stderr
    assert not (run / "sizes.json").exists()


def test_a_spool_that_cannot_be_written_ends_the_task(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 2, 4, side=128)
    plain = tmp_path / "in/00001.tar"
    (tmp_path / "in/00001.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    words = ("data.shards=in/*", "engine=fake", "output.dir=run", "data.spool=/proc/x")
    result = launch(*words, cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "data.spool" in result.stderr
    assert "/proc/x" in result.stderr


def test_spooled_shards_have_data_spool_gb_together(tmp_path: Path) -> None:
    """Two that fit only one after the other wait for each other; one that never fits names the key."""
    (tmp_path / "in").mkdir()
    for number, size in enumerate((700_000, 700_000, 1_200_000, 700_000)):
        members = [*plain_members(4), ("k00003.bin", bytes(size))]
        (tmp_path / f"in/{number}.tar.gz").write_bytes(gzip.compress(tar_bytes(members), 1))
    words = ("data.shards=in", "engine=fake", "output.dir=run", "data.spool=spool")
    words += ("data.spool_gb=0.001", "data.tries=1", "engine.rate=8")
    most = 0
    with started(*words, cwd=tmp_path) as process:
        while process.popen.poll() is None:
            most = max(most, spooled(process, tmp_path / "spool"))
            time.sleep(0.02)
        result = process.finish(60)
    assert result.returncode == 1, result
    assert list(markers(tmp_path / "run")) == ["0.tar", "1.tar", "3.tar"]
    assert "2.tar: larger than" in result.stderr
    assert "data.spool_gb=0.001" in result.stderr
    assert 700_000 < most <= 0.001 * 2**30


def spooled(process: Process, folder: Path) -> int:
    """Bytes of unlinked files in a folder that a launch's processes hold open."""
    sizes = {}
    for pid, _ in process.left():
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                if os.readlink(descriptor).startswith(f"{folder}/"):
                    found = descriptor.stat()
                    sizes[found.st_ino] = found.st_size
            except OSError:
                continue
    return sum(sizes.values())


def test_a_mended_shard_is_done_by_the_same_command(tmp_path: Path) -> None:
    """Zero bytes in the middle keep the size that was frozen."""
    write_shards(tmp_path / "in", 2, 4, side=128)
    bad = tmp_path / "in/00001.tar"
    whole = bad.read_bytes()
    bad.write_bytes(bytes(512) + whole[512:])
    words = ("data.shards=in/*.tar", "engine=fake", "output.dir=run")
    assert launch(*words, cwd=tmp_path).returncode == 1
    bad.write_bytes(whole)
    launched(*words, cwd=tmp_path)
    assert len(captions(tmp_path / "run")) == 8
    assert not (tmp_path / "run/.recaption/failed/00001.json").exists()
