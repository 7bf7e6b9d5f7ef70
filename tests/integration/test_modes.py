"""Keys that change what is written, or how the work is shared out, with the fake engine."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard
from drawing import write_shard, write_shards
from helpers import (
    Made,
    Source,
    assert_same_samples,
    captions,
    files_of,
    launched,
    markers,
    read_run,
    read_shard,
    rows,
)

FAKE = ("engine=fake", "output.dir=run")
NAMED = "prompt.name=mine"


def tars(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.tar")}


def test_four_workers_and_another_run_give_the_same_bytes(
    made: Made, source: Source, tmp_path: Path
) -> None:
    launched(source.word, *FAKE, "data.workers=4", cwd=tmp_path)
    assert captions(tmp_path / "run") == captions(made.run)
    assert tars(tmp_path / "run") == tars(made.run)


@pytest.mark.parametrize("tasks", [2, 4])
def test_several_tasks_give_the_same_bytes(
    made: Made, source: Source, tmp_path: Path, tasks: int
) -> None:
    words = (f"slurm.tasks={tasks}", "slurm.parallelism=2", "task.steal=false")
    result = launched(source.word, *FAKE, *words, cwd=tmp_path)
    assert f"{tasks} tasks" in result.stdout
    assert tars(tmp_path / "run") == tars(made.run)
    assert {m["task"] for m in markers(tmp_path / "run").values()} == set(range(tasks))


def test_kept_text(made: Made, source: Source, tmp_path: Path) -> None:
    """The original caption stays in .txt, the new one is in .json."""
    launched(source.word, *FAKE, "output.text=keep", cwd=tmp_path)
    new = captions(made.run)
    kept = {k: m for shard in read_run(tmp_path / "run").values() for k, m in shard.items()}
    assert list(kept) == list(new)
    for key, members in kept.items():
        fields = json.loads(members["json"])
        assert members["txt"].decode("utf-8", "replace") == fields["caption_original"]
        assert fields["caption"] == new[key]
    assert kept["odd/latin"]["txt"] == source.samples["odd/latin"].members["txt"]
    assert kept["odd/whole"]["txt"] == b"alt"
    assert kept["odd/from_json"]["txt"] == b"from json"
    assert kept["odd/bare"]["txt"] == b""


def test_captions_mode(made: Made, source: Source, tmp_path: Path) -> None:
    """Every input key in order, .txt and .json only."""
    launched(source.word, *FAKE, "output.mode=captions", cwd=tmp_path)
    new = captions(made.run)
    shards = read_run(tmp_path / "run")
    for name, samples in source.shards.items():
        assert list(shards[name]) == [s.key for s in samples]
        for key, members in shards[name].items():
            assert set(members) == {"txt", "json"}
            fields = json.loads(members["json"])
            assert fields["recaption_status"] == ("captioned" if key in new else "rejected")
            assert members["txt"].decode() == fields["caption"] == new.get(key, "")
    states = {json.loads(m["json"])["recaption_status"] for m in shards["odd.tar"].values()}
    assert states == {"captioned", "rejected"}


def test_the_first_samples_of_some_shards(made: Made, source: Source, tmp_path: Path) -> None:
    words = (source.word, "engine=fake", "data.max_samples=5", "data.range=0,2-")
    result = launched(*words, cwd=tmp_path)
    run = tmp_path / "outputs/drawn/tiny/short-pilot5-fake"
    assert f"run directory: {run}" in result.stdout
    assert list(markers(run)) == ["00000.tar", "00002.tar", "odd.tar"]
    for name, samples in read_run(run).items():
        assert list(samples) == [s.key for s in source.shards[name][:5]]
        assert len(rows(run, name)) == 5
    assert {k: v for k, v in captions(made.run).items() if k in captions(run)} == captions(run)
    assert not (run / "sizes.json").exists()  # one shard is still to do

    launched(*words[:-1], cwd=tmp_path)
    assert list(markers(run)) == list(source.shards)
    assert json.loads((run / "sizes.json").read_bytes()) == dict.fromkeys(source.shards, 5)


def test_a_salted_caption_differs_from_run_to_run(one_shard: Path, tmp_path: Path) -> None:
    """What the tests of resuming rely on: the same captions are then never made twice."""
    words = (f"data.shards={one_shard}", "engine=fake", "engine.salt=random")
    launched(*words, "output.dir=a", cwd=tmp_path)
    launched(*words, "output.dir=b", cwd=tmp_path)
    a, b = captions(tmp_path / "a"), captions(tmp_path / "b")
    assert list(a) == list(b)
    assert not set(a.values()) & set(b.values())


def test_several_prompts_give_the_captions_of_separate_runs(
    made: Made, source: Source, tmp_path: Path
) -> None:
    launched(source.word, *FAKE, "prompts=[short,detailed]", cwd=tmp_path)
    launched(source.word, "engine=fake", "output.dir=detailed", "prompt=detailed", cwd=tmp_path)
    short, detailed = captions(made.run), captions(tmp_path / "detailed")
    assert not set(short.values()) & set(detailed.values())
    found = {k: m for shard in read_run(tmp_path / "run").values() for k, m in shard.items()}
    assert list(found) == list(short)
    for key, members in found.items():
        fields = json.loads(members["json"])
        assert members["txt"].decode() == fields["caption"] == short[key]
        assert fields["caption_short"] == short[key]
        assert fields["caption_detailed"] == detailed[key]
        assert fields["recaption_prompt"] == "short+detailed"
    for name in source.shards:
        for row in rows(tmp_path / "run", name):
            assert row["caption_detailed"] == detailed.get(row["key"], "")


def test_fields_of_a_prompt_come_from_the_sample(source: Source, tmp_path: Path) -> None:
    """A sample that lacks one is rejected by name, alone."""
    words = (source.word, *FAKE, "prompt.text={json.id} {{x}} {caption}", NAMED)
    result = launched(*words, cwd=tmp_path)
    states = {r["key"]: r for name in source.shards for r in rows(tmp_path / "run", name)}
    for key, sample in source.samples.items():
        if sample.picture is None:
            continue
        if "json" in sample.members:
            assert states[key]["status"] == "captioned"
        else:
            assert states[key]["status"] == "rejected"
            assert "{json.id}" in states[key]["reason"]
    drawn = {r["status"] for key, r in states.items() if source.samples[key].picture}
    assert drawn == {"captioned", "rejected"}
    missing = sum("{json.id}" in r["reason"] for r in states.values())
    assert f"  {missing} × rejected: prompt field {{json.id}} is missing in" in result.stdout


def test_a_prompt_reaches_the_model_as_it_was_typed(one_shard: Path, tmp_path: Path) -> None:
    """Braces doubled in the text mean one, quotes and `${` nothing at all."""
    word = f"data.shards={one_shard}"
    odd = """it's "a", {{b: [c]}} = ${{d}} \\ e"""
    launched(word, "engine=fake", "output.dir=a", f"prompt.text={odd}", NAMED, cwd=tmp_path)
    launched(word, "engine=fake", "output.dir=b", cwd=tmp_path)
    frozen = json.loads((tmp_path / "a/.recaption/run.json").read_bytes())
    assert frozen["prompts"][0]["text"] == odd
    assert not set(captions(tmp_path / "a").values()) & set(captions(tmp_path / "b").values())


def test_an_output_shard_is_an_input_shard(made: Made, tmp_path: Path) -> None:
    """Recaptioning what was recaptioned: the pictures are the same, so are the captions."""
    launched(f"data.shards={made.run}/*.tar", *FAKE, cwd=tmp_path)
    assert captions(tmp_path / "run") == captions(made.run)
    members = read_run(tmp_path / "run")["odd.tar"]["odd/whole"]
    fields = json.loads(members["json"])
    assert fields["caption_original"] == captions(made.run)["odd/whole"]
    assert fields["source_caption_original"] == "alt"
    assert fields["source_caption"] == "j"
    assert fields["source_source_caption"] == captions(made.run)["odd/whole"]


def test_an_empty_shard_and_one_without_pictures(tmp_path: Path) -> None:
    """An empty tar each, which the card leaves out."""
    samples = write_shards(tmp_path / "in", 1, 4, side=128)["00000.tar"]
    texts = [type(s)(s.key, {"txt": b"x"}) for s in samples]
    write_shard(tmp_path / "in/texts.tar", texts)
    write_shard(tmp_path / "in/void.tar", [])
    launched(f"data.shards={tmp_path}/in/*.tar", *FAKE, cwd=tmp_path)
    run = tmp_path / "run"
    assert read_shard(run / "texts.tar") == read_shard(run / "void.tar") == {}
    assert [r["status"] for r in rows(run, "texts.tar")] == ["rejected"] * 4
    assert rows(run, "void.tar") == []
    sizes = json.loads((run / "sizes.json").read_bytes())
    assert sizes == {"00000.tar": 4, "texts.tar": 0, "void.tar": 0}
    card = (run / "README.md").read_text()
    assert '"00000.tar"' in card
    assert "void.tar" not in card
    assert "texts.tar" not in card


def test_compressed_shards(tmp_path: Path) -> None:
    source = write_shards(tmp_path / "in", 3, 4, side=128)
    packers = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress}
    for name, (suffix, pack) in zip(source, packers.items(), strict=True):
        plain = tmp_path / "in" / name
        (tmp_path / f"in/{name}.{suffix}").write_bytes(pack(plain.read_bytes()))
        plain.unlink()
    before = files_of(tmp_path / "in")
    launched(f"data.shards={tmp_path}/in/*", *FAKE, cwd=tmp_path)
    assert_same_samples(tmp_path / "run", source)
    assert files_of(tmp_path / "in") == before
