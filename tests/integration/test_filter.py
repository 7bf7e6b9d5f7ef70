"""A run made from another one by its columns: no source, no engine, true markers."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import Completed, Source, files_of, launch, launched, markers, read_run, refused, rows


@dataclass(frozen=True)
class Parent:
    """A run with two prompts, some of whose captions are cut, and its source."""

    run: Path
    source: Source
    cut: str  # key of a sample with a cut detailed caption


def preset(folder: Path, poison: dict[str, str]) -> str:
    """An engine preset with poisoned captions; returns the word that finds it."""
    (folder / "presets/engine").mkdir(parents=True)
    text = json.dumps({"kind": "fake", "poison": poison})
    (folder / "presets/engine/poisoned.yaml").write_text(text)
    return f"--config-dir={folder}/presets"


@pytest.fixture(scope="module")
def parent(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    cwd = tmp_path_factory.mktemp("parent")
    words = (source.word, "prompts=[short,detailed]")
    launched(*words, "engine=fake", "output.dir=plain", cwd=cwd)
    cut = rows(cwd / "plain", "00001.tar")[3]
    where = preset(cwd, {cut["caption_detailed"]: "cut"})
    launched(where, *words, "engine=poisoned", "output.dir=run", cwd=cwd)
    return Parent(cwd / "run", source, cut["key"])


def filtered(parent: Path, where: str, cwd: Path, out: str = "new", code: int = 0) -> Completed:
    result = launch(str(parent), "--where", where, "-o", out, cwd=cwd, module="filter")
    assert result.returncode == code, result
    return result


def verified(run: Path) -> None:
    result = launch(str(run), "--input", cwd=run.parent, module="verify")
    assert result.returncode == 0, result.stdout + result.stderr


def test_one_sample_leaves_the_run(parent: Parent, tmp_path: Path) -> None:
    """Its shard is made again, the others are linked, and everything is true."""
    before = files_of(parent.run)
    result = filtered(parent.run, "not truncated", tmp_path)
    assert "3 shards linked, 1 rewritten" in result.stdout
    new = tmp_path / "new"
    shard = parent.run / "00001.tar"
    for name, marker in markers(new).items():
        linked = os.path.samefile(parent.run / name, new / name)
        assert linked == (name != shard.name)
        assert marker["counts"]["filtered"] == (name == shard.name)
        old = markers(parent.run)[name]
        assert marker["input"] == old["input"]
        assert marker["fingerprint"] != old["fingerprint"]
    changed = {r["key"]: r for r in rows(new, shard.name)}
    for row in rows(parent.run, shard.name):
        if row["key"] == parent.cut:
            row |= {"status": "filtered", "reason": "does not fulfil not truncated"}
        assert changed[row["key"]] == row
    kept, there = read_run(new), read_run(parent.run)
    del there[shard.name][parent.cut]
    assert kept == there
    record = json.loads((new / ".recaption/run.json").read_bytes())
    assert record["parent"]["run"] == str(parent.run)
    assert record["parent"]["where"] == "not truncated"
    sizes = json.loads((new / "sizes.json").read_bytes())
    assert sizes == {name: len(samples) for name, samples in kept.items()}
    assert "| filtered | 1 |" in (new / "README.md").read_text()
    verified(new)
    assert files_of(parent.run) == before


def test_flags_of_one_prompt(parent: Parent, tmp_path: Path) -> None:
    """Only the detailed caption was cut."""
    words = "not truncated_short and not empty"
    assert "4 shards linked" in filtered(parent.run, words, tmp_path, "a").stdout
    words = "truncated_detailed or key in ['odd/whole']"
    filtered(parent.run, words, tmp_path, "b")
    left = [key for samples in read_run(tmp_path / "b").values() for key in samples]
    assert left == [parent.cut, "odd/whole"]
    verified(tmp_path / "b")


def test_neither_source_nor_repetition(parent: Parent, tmp_path: Path) -> None:
    """It works from a copy without the source; again it changes nothing; what is missing comes back."""
    copy = tmp_path / "copy"
    shutil.copytree(parent.run, copy)
    hidden = parent.source.folder.with_name("hidden")
    parent.source.folder.rename(hidden)
    try:
        filtered(copy, "min_side > 120 and len(caption) > 3", tmp_path)
    finally:
        hidden.rename(parent.source.folder)
    new = tmp_path / "new"
    verified(new)
    made = files_of(new)
    again = filtered(copy, "min_side > 120 and len(caption) > 3", tmp_path)
    assert "0 shards linked, 0 rewritten" in again.stdout
    tars = {name: content for name, content in made.items() if name.endswith(".tar")}
    (new / ".recaption/shards/00000.json").unlink()
    (new / ".recaption/shards/00001.json").unlink()
    (new / "00001.tar").unlink()
    filtered(copy, "min_side > 120 and len(caption) > 3", tmp_path)
    assert {n: c for n, c in files_of(new).items() if n.endswith(".tar")} == tars
    verified(new)
    other = launch(str(copy), "--where", "tokens > 1", "-o", "new", cwd=tmp_path, module="filter")
    refused(other, "-o", "another run")


def test_a_filtered_run_is_filtered_again(parent: Parent, tmp_path: Path) -> None:
    filtered(parent.run, "not truncated", tmp_path, "a")
    filtered(tmp_path / "a", "width >= height", tmp_path, "b")
    found = [r for name in parent.source.shards for r in rows(tmp_path / "b", name)]
    reasons = {r["reason"] for r in found if r["status"] == "filtered"}
    assert reasons == {"does not fulfil not truncated", "does not fulfil width >= height"}
    assert all(r["width"] >= r["height"] for r in found if r["status"] == "captioned")
    verified(tmp_path / "b")


def test_a_captions_only_run(source: Source, tmp_path: Path) -> None:
    """Every key stays; the caption is empty where it was filtered."""
    words = ("engine=fake", "output.mode=captions", "output.dir=run")
    launched(source.word, *words, cwd=tmp_path)
    filtered(tmp_path / "run", "'5' in caption and width > 140", tmp_path)
    states = set()
    for name, samples in read_run(tmp_path / "new").items():
        found = {r["key"]: r for r in rows(tmp_path / "new", name)}
        assert list(samples) == list(found) == [s.key for s in source.shards[name]]
        for key, members in samples.items():
            fields = json.loads(members["json"])
            states.add(fields["recaption_status"])
            assert fields["recaption_status"] == found[key]["status"]
            shown = found[key]["caption"] if found[key]["status"] == "captioned" else ""
            assert members["txt"].decode() == fields["caption"] == shown
    assert states == {"captioned", "filtered", "rejected"}
    verified(tmp_path / "new")


def test_a_parent_that_lacks_shards(parent: Parent, tmp_path: Path) -> None:
    """They come with a later run of the same command."""
    copy = tmp_path / "copy"
    shutil.copytree(parent.run, copy)
    marker = copy / ".recaption/shards/00002.json"
    content = marker.read_bytes()
    marker.unlink()
    result = filtered(copy, "height > 120", tmp_path, code=1)
    assert "1 shards are not published" in result.stdout
    assert not (tmp_path / "new/sizes.json").exists()
    marker.write_bytes(content)
    for log in (copy / ".recaption/tasks").iterdir():
        log.unlink()
    filtered(copy, "height > 120", tmp_path)
    assert set(markers(tmp_path / "new")) == set(parent.source.shards)
    verified(tmp_path / "new")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--where", "watermark_score < 1", "-o", "x"), "caption_detailed"),
        (("--where", "truncated ==", "-o", "x"), "cannot be read"),
        (("--where", "truncated"), "-o/--output: needed"),
        (("-o", "x"), "--where: needed"),
        (("--where", "truncated", "-o", "."), "is the run itself"),
        (("--where", "truncated", "-o", "s3://bucket/x"), "-o=s3://bucket/x: must be a folder"),
        (("--were", "truncated", "-o", "x"), "did you mean --where?"),
    ],
)
def test_mistakes(parent: Parent, words: tuple[str, ...], named: str, tmp_path: Path) -> None:
    result = launch(str(parent.run), *words, cwd=parent.run, module="filter")
    refused(result, named)
    assert not (parent.run / "x").exists()
