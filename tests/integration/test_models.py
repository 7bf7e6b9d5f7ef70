"""Which model captions: what was named does, under its own name, or launch says why not."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Completed, launch, refused

from recaption.model.files import model_folder
from recaption.model.hashing import BLOCK, BLOCKS, hash_model

Launch = Callable[..., Completed]
TINY = model_folder("builtin:tiny")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tiny model's files as a folder of one's own."""
    shutil.copytree(TINY, tmp_path / "copy")
    return tmp_path / "copy"


def shown(result: Completed) -> dict[str, str]:
    """The model's section of `--cfg job`."""
    assert result.returncode == 0, result
    section = result.stdout.partition("\nmodel:\n")[2].split("\nprompt:")[0]
    pairs = (line.strip().partition(": ") for line in section.splitlines())
    return {key: value for key, _, value in pairs}


def config_of(launch_here: Launch, folder: Path, *words: str) -> dict[str, str]:
    (folder / "x.tar").touch()
    return shown(launch_here("data.shards=x.tar", *words, "--cfg", "job", cwd=folder))


@pytest.mark.parametrize("word", ["model.repo=owner/name", "model.path=/nowhere"])
def test_another_model_does_not_get_the_shipped_ones_keys(
    launch_here: Launch, tmp_path: Path, word: str
) -> None:
    section = config_of(launch_here, tmp_path, word, "model.name=x")
    assert section["max_model_len"] == "4096"
    assert section["processor"] == "{}"
    source = {"path": section["path"], "repo": section["repo"]}
    key, _, value = word.removeprefix("model.").partition("=")
    assert source == {"path": "null", "repo": "null"} | {key: value}


def test_a_repository_without_a_network_is_no_other_model(
    launch_here: Launch, one_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ("model.repo=owner/name", "model.name=x", "output.dir=run")
    result = launch(f"data.shards={one_shard}", *words, cwd=tmp_path)
    refused(result, "model.repo=owner/name")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.repo=owner/name"], ["model.name"]),
        (["model=custom", "model.name=x"], ["model.path", "model.repo"]),
        (["model=tiny", "model.repo=owner/name", "model.name=x"], ["model.repo", "model=tiny"]),
        (["model=tiny", "model.path=copy", "model.name=x"], ["model.path=copy", "model=tiny"]),
        (["model.repo=o/n", "model.path=copy", "model.name=x"], ["model.repo", "model.path"]),
        (
            ["model=qwen2.5-vl-7b", "model.path=copy"],
            [
                "model.path=", "copy", "Idefics3ForConditionalGeneration",
                "Qwen2_5_VLForConditionalGeneration", "qwen2.5-vl-7b",
            ],
        ),
        (["prompt.text=What?"], ["prompt.text", "prompt.name", "short"]),
        (["model.engine.tokenizer=copy"], ["model.engine.tokenizer", "model.path"]),
        (["model.engine.dtype=float32"], ["model.engine.dtype", "model.dtype"]),
        (["model.engine={max_num_seqs: 3}"], ["model.engine.max_num_seqs", "engine.max_num_seqs"]),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_a_mistake_about_the_model(
    launch_here: Launch, one_shard: Path, tmp_path: Path, copy: Path, words: list[str],
    named: list[str],
) -> None:  # fmt: skip
    result = launch_here(f"data.shards={one_shard}", *words, "output.dir=run", cwd=tmp_path)
    refused(result, *named)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_preset_of_ones_own_with_a_source_is_a_preset(
    launch_here: Launch, tmp_path: Path
) -> None:
    (tmp_path / "mine/model").mkdir(parents=True)
    text = "name: house\nrepo: owner/name\nrevision: v1\nmax_model_len: 777\n"
    (tmp_path / "mine/model/house.yaml").write_text(text)
    words = ("model=house", "--config-dir", "mine")
    section = config_of(launch_here, tmp_path, *words)
    assert (section["repo"], section["revision"]) == ("owner/name", "v1")
    section = config_of(launch_here, tmp_path, *words, "model.path=/local/copy")
    assert section["max_model_len"] == "777"
    assert section["name"] == "house"
    assert (section["path"], section["repo"], section["revision"]) == (
        "/local/copy",
        "null",
        "null",
    )


def test_a_run_that_has_the_shipped_model_under_a_repositorys_name_does_not_go_on(
    launch_here: Launch, one_shard: Path, tmp_path: Path
) -> None:
    """0.1.0 made such runs; the record here says what theirs said."""
    words = (f"data.shards={one_shard}", "output.dir=run", "wait=false")
    made = launch(*words, "engine=fake", cwd=tmp_path)
    assert made.returncode == 0, made
    path = tmp_path / "run/.recaption/run.json"
    record = json.loads(path.read_bytes())
    record["versions"]["recaption"] = "0.1.0"
    record["model"] |= {"name": "x", "path": "builtin:tiny"}
    path.write_text(json.dumps(record))
    path = tmp_path / "run/.recaption/submissions/0.json"
    submission = json.loads(path.read_bytes())
    submission["config"]["model"] |= {"name": "x", "repo": "owner/name"}
    path.write_text(json.dumps(submission))
    for module in ("launch", "retry"):
        given = ("run",) if module == "retry" else (*words, "model.repo=owner/name", "model.name=x")
        refused(launch(*given, cwd=tmp_path, module=module), "tiny", "owner/name")


def weights(folder: Path, changed_at: int | None = None, name: str = "model.safetensors") -> Path:
    """A model whose 70 MB of weights are mostly holes, with one region of bytes trained away."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [35_000_000], "data_offsets": [0, 7e7]}})
    with (folder / name).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header.encode())
        file.truncate(70_000_000)
        if changed_at is not None:
            file.seek(changed_at)
            file.write(b"\1" * (70_000_000 // BLOCKS + 1))
    return folder


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_two_checkpoints_of_one_size_are_two_models(tmp_path: Path, place: float) -> None:
    first = weights(tmp_path / "a")
    second = weights(tmp_path / "b", int(place * 60_000_000))
    assert hash_model(first, 1) == hash_model(second, 1), "0.1.0 took them for one"
    assert hash_model(first, 2) != hash_model(second, 2)
    assert hash_model(first, 2) == hash_model(weights(tmp_path / "c"), 2)


def test_an_adapter_is_hashed_whole(tmp_path: Path) -> None:
    first = weights(tmp_path / "a", name="adapter_model.safetensors")
    second = shutil.copytree(first, tmp_path / "b")
    with (second / "adapter_model.safetensors").open("r+b") as file:
        file.seek(BLOCK + 70_000_000 // BLOCKS // 2)
        file.write(b"\1")
    assert hash_model(first, 2) != hash_model(second, 2)
