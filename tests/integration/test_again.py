"""The same command once more, a changed one, and a run that was moved."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import Completed, Made, Source, captions, files_of, launched, markers, refused

from recaption.run import shared

Launch = Callable[..., Completed]
FAKE = ("engine=fake", "output.dir=run")


def test_a_finished_run_does_nothing_and_says_so(made: Made, source: Source) -> None:
    before = files_of(made.run)
    started = time.monotonic()
    result = launched(source.word, *FAKE, cwd=made.run.parent)
    assert time.monotonic() - started < 5
    assert "nothing to do" in result.stdout
    assert files_of(made.run) == before


def test_a_launch_reads_a_run_once(
    made: Made, source: Source, launch_here: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list of shards may be long."""
    content, read = shared.content, []

    def counted(path: Path) -> bytes:
        read.append(path.name)
        return content(path)

    monkeypatch.setattr(shared, "content", counted)
    result = launch_here(source.word, *FAKE, "dry_run=true", cwd=made.run.parent)
    assert result.returncode == 0, result
    assert read.count("run.json") == 1


@pytest.mark.parametrize(
    "free",
    [
        "data.range=0-1",
        "slurm.tasks=3",
        "engine.max_num_seqs=7",
        "data.workers=3",
        "wait=true",
        "data.tries=5",
        "data.damaged=salvage",
        "data.name=other",
    ],
)
def test_keys_outside_the_fingerprint_may_change(
    launch_here: Launch, made: Made, source: Source, free: str
) -> None:
    result = launch_here(source.word, *FAKE, free, cwd=made.run.parent)
    assert result.returncode == 0
    assert "nothing to do" in result.stdout


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("prompt=detailed", "prompt.text"),
        ("prompt.text=other", "prompt.text"),
        ("prompt.system=x", "prompt.system"),
        ("sampling.seed=3", "sampling.seed"),
        ("sampling.max_tokens=9", "sampling.max_tokens"),
        ("model.max_pixels=10000", "model.max_pixels"),
        ("data.max_samples=4", "data.max_samples"),
        ("data.caption_key=alt", "data.caption_key"),
        ("data.image_keys=[png]", "data.image_keys"),
        ("output.text=keep", "output.text"),
        ("output.mode=captions", "output.mode"),
        ("image.background=[0,0,0]", "image.background"),
        ("prompts=[short,detailed]", "prompts"),
        ("engine=vllm", "engine"),
    ],
)
def test_another_fingerprint_is_refused_by_key(
    launch_here: Launch, made: Made, source: Source, tmp_path: Path, word: str, key: str
) -> None:
    words = [source.word, *FAKE, word]
    if word == "engine=vllm":
        (tmp_path / "config.json").write_text("{}")
        words = [source.word, "output.dir=run", "model.name=tiny", f"model.path={tmp_path}"]
    before = files_of(made.run)
    refused(launch_here(*words, cwd=made.run.parent), key, str(made.run))
    assert files_of(made.run) == before


def test_another_shard_list_is_refused(launch_here: Launch, made: Made, source: Source) -> None:
    words = (f"data.shards={source.folder}/0000*.tar", *FAKE)
    refused(launch_here(*words, cwd=made.run.parent), "data.shards", str(made.run))


def test_an_input_that_changed_is_refused(launch_here: Launch, tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 2, 4, side=128)
    words = ("data.shards=in/*.tar", *FAKE)
    launched(*words, "data.range=0", cwd=tmp_path)
    with (tmp_path / "in/00001.tar").open("ab") as file:
        file.write(bytes(10240))
    refused(launch_here(*words, cwd=tmp_path), "data.shards", "00001.tar")


def test_a_copied_run_still_works(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 2, 4, side=128)
    words = ("data.shards=in/*.tar", "engine=fake")
    launched(*words, "output.dir=run", "data.range=0", cwd=tmp_path)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    launched(*words, "output.dir=elsewhere", cwd=tmp_path)
    assert list(markers(tmp_path / "elsewhere")) == ["00000.tar", "00001.tar"]
    assert len(captions(tmp_path / "elsewhere")) == 8
    assert not (tmp_path / "run").exists()


def test_the_ranges_of_several_launches_add_up(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 3, 3, side=128)
    for chosen, missing in (("1", 1), ("0-", 2)):
        result = launched("data.shards=in/*.tar", *FAKE, f"data.range={chosen}", cwd=tmp_path)
        assert f"{missing} of" in result.stdout
    assert len(markers(tmp_path / "run")) == 3
    assert json.loads((tmp_path / "run/sizes.json").read_bytes()) == {
        f"0000{i}.tar": 3 for i in range(3)
    }
