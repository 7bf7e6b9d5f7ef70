"""What becomes of flagged captions: stored, asked again, filtered; several prompts and chains."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import launch, launched, read_run, rows
from tars import tiny_png, write_tar

SHARD = "00000.tar"
LOOP = "a cat " * 9


@dataclass(frozen=True)
class Plain:
    """A run in which nothing is wrong, and a preset that spoils the captions of three samples."""

    words: tuple[str, ...]
    rows: list[dict[str, Any]]
    spoilt: dict[int, str]  # index → flags


@pytest.fixture(scope="module")
def plain(one_shard: Path, tmp_path_factory: pytest.TempPathFactory) -> Plain:
    cwd = tmp_path_factory.mktemp("plain")
    word = f"data.shards={one_shard}"
    launched(word, "engine=fake", "output.dir=run", cwd=cwd)
    made = rows(cwd / "run", SHARD)
    captions = [row["caption"] for row in made]
    poison = {captions[1]: "cut", captions[2]: "say I'm sorry, but I can't help with that."}
    poison |= {captions[4]: f"say {LOOP}"}
    (cwd / "presets/engine").mkdir(parents=True)
    text = json.dumps({"kind": "fake", "poison": poison})
    (cwd / "presets/engine/poisoned.yaml").write_text(text)
    words = (f"--config-dir={cwd}/presets", word, "engine=poisoned", "output.dir=run")
    return Plain(words, made, {1: "truncated", 2: "refusal", 4: "repetition"})


def found(run: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Rows, and the JSON of what is published."""
    (shard,) = read_run(run).values()
    return rows(run, SHARD), {key: json.loads(m["json"]) for key, m in shard.items()}


def verified(run: Path) -> None:
    result = launch(str(run), "--input", cwd=run.parent, module="verify")
    assert result.returncode == 0, result.stdout


def test_flags_are_stored(plain: Plain, tmp_path: Path) -> None:
    launched(*plain.words, cwd=tmp_path)
    made, published = found(tmp_path / "run")
    for row in made:
        assert row["status"] == "captioned"
        assert row["flags"] == plain.spoilt.get(row["index"], "")
        assert row["attempts"] == ""
        assert published[row["key"]]["recaption_flags"] == row["flags"]
        assert published[row["key"]]["recaption_finish_reason"] == row["finish_reason"]
    assert made[1]["finish_reason"] == "length"


@pytest.mark.parametrize("mode", ["full", "captions"])
def test_what_stays_bad_is_filtered(plain: Plain, tmp_path: Path, mode: str) -> None:
    """With the reason; the caption itself stays in the row, for another decision later."""
    words = ("quality.action=filter", "quality.bad=[truncated,repetition]", f"output.mode={mode}")
    launched(*plain.words, *words, cwd=tmp_path)
    made, published = found(tmp_path / "run")
    for row in made:
        bad = row["index"] in (1, 4)
        assert row["status"] == ("filtered" if bad else "captioned")
        assert row["reason"] == (f"caption is flagged {row['flags']}" if bad else "")
        assert row["caption"]
        if bad and mode == "captions":
            assert published[row["key"]]["caption"] == ""
        else:
            assert (row["key"] in published) != bad
    verified(tmp_path / "run")


def test_a_flagged_caption_is_asked_for_again(plain: Plain, tmp_path: Path) -> None:
    """Once more is enough here; the first answer is kept in the row."""
    launched(*plain.words, "quality.retries=3", "quality.temperature_step=0.25", cwd=tmp_path)
    made, published = found(tmp_path / "run")
    for row, before in zip(made, plain.rows, strict=True):
        assert (row["status"], row["flags"]) == ("captioned", "")
        assert published[row["key"]]["caption"] == row["caption"]
        if row["index"] not in plain.spoilt:
            assert row["caption"] == before["caption"]
            assert (row["tries"], row["attempts"]) == (1, "")
            continue
        assert row["caption"] != before["caption"]
        assert row["tries"] == 2
        (first,) = json.loads(row["attempts"])
        assert first["flags"] == plain.spoilt[row["index"]]
        assert (first["attempt"], first["temperature"], first["prompt"]) == (0, 0.0, "short")
    assert json.loads(made[4]["attempts"])[0]["caption"] == LOOP


def test_the_earliest_of_equally_bad_captions_is_kept(plain: Plain, tmp_path: Path) -> None:
    words = ("quality.min_words=9", "quality.retries=2", "quality.temperature_step=0.5")
    launched(plain.words[1], "engine=fake", "output.dir=run", *words, cwd=tmp_path)
    made, _ = found(tmp_path / "run")
    for row, before in zip(made, plain.rows, strict=True):
        assert (row["caption"], row["flags"], row["tries"]) == (before["caption"], "short", 3)
        attempts = json.loads(row["attempts"])
        assert [a["attempt"] for a in attempts] == [1, 2]
        assert [a["temperature"] for a in attempts] == [0.5, 1.0]
        assert len({row["caption"], *(a["caption"] for a in attempts)}) == 3


def test_one_prompt_of_a_chain_is_asked_again(plain: Plain, tmp_path: Path) -> None:
    """The later prompt gets the answer that was kept; only the flagged prompt is asked again."""
    folder = tmp_path / "presets/prompt"
    folder.mkdir(parents=True)
    for name, text in (
        ("about", "More than {captions.short}?"),
        ("twin", "About {captions.short}"),
    ):
        (folder / f"{name}.yaml").write_text(json.dumps({"name": name, "text": text}))
    chain = ("prompts=[short,about,twin]", "output.dir=run", "engine.record=made.txt")
    presets = Path(plain.words[0].removeprefix("--config-dir="))
    (tmp_path / "presets/engine").mkdir()
    (tmp_path / "presets/engine/poisoned.yaml").write_bytes(
        (presets / "engine/poisoned.yaml").read_bytes()
    )
    words = ("--config-dir=presets", plain.words[1], *chain, "quality.retries=1")
    launched(*words, "engine=poisoned", cwd=tmp_path)
    made, published = found(tmp_path / "run")
    for row, before in zip(made, plain.rows, strict=True):
        again = row["index"] in plain.spoilt
        assert row["tries"] == (3 if again else 2)
        assert (row["caption_short"] == before["caption"]) == (not again)
        fields = published[row["key"]]
        names = ("short", "about", "twin")
        assert fields["caption"] == fields["caption_short"]
        assert len({fields[f"caption_{name}"] for name in names}) == 3
        assert {fields[f"recaption_flags_{name}"] for name in names} == {""}
        assert {fields[f"recaption_finish_reason_{name}"] for name in names} == {"stop"}
    answers = (tmp_path / "made.txt").read_text().splitlines()
    assert len(answers) == 3 * len(made) + len(plain.spoilt)
    about = f"prompt.text=More than {made[2]['caption_short']}?"
    two = ("engine=fake", "output.dir=two", "prompt.name=about")
    launched(plain.words[1], *two, about, cwd=tmp_path)
    assert rows(tmp_path / "two", SHARD)[2]["caption"] == made[2]["caption_about"]


def test_a_sample_needs_all_its_prompts(tmp_path: Path) -> None:
    """One that a prompt cannot be made for is rejected, with none of its captions published."""
    members = [(f"k{i}.png", tiny_png(i, side=32)) for i in range(4)]
    shard = write_tar(tmp_path / "set" / SHARD, [*members, ("k3.json", b'{"rare": 1}')])
    folder = tmp_path / "presets/prompt"
    folder.mkdir(parents=True)
    text = json.dumps({"name": "rare", "text": "{captions.short} {json.rare}"})
    (folder / "rare.yaml").write_text(text)
    words = (f"data.shards={shard}", "engine=fake", "--config-dir=presets", "output.dir=run")
    launched(*words, "prompts=[short,rare]", "data.alarm=1", cwd=tmp_path)
    made, published = found(tmp_path / "run")
    assert [r["status"] for r in made] == ["rejected"] * 3 + ["captioned"]
    assert all("{json.rare}" in r["reason"] for r in made[:3])
    assert list(published) == ["k3"]
