"""What a full run with the fake engine leaves behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from drawing import Sample
from helpers import Made, Members, Source, markers, read_run, rows

REJECTED = {"odd/no_image", "odd/no_picture", "odd/empty"}
OWN = (
    "caption",
    "caption_original",
    "recaption_model",
    "recaption_prompt",
    "recaption_finish_reason",
    "recaption_flags",
)


@pytest.fixture(scope="module")
def outputs(made: Made) -> dict[str, Members]:
    return {k: m for samples in read_run(made.run).values() for k, m in samples.items()}


def fields_of(members: Members) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads(members["json"], parse_constant=refuse)
    return found


def test_every_captioned_sample_is_there_once_and_in_order(made: Made, source: Source) -> None:
    shards = read_run(made.run)
    assert list(shards) == list(source.shards)
    for name, samples in source.shards.items():
        assert list(shards[name]) == [s.key for s in samples if s.key not in REJECTED]


def test_members_other_than_texts_are_byte_identical(
    outputs: dict[str, Members], source: Source
) -> None:
    def others(members: Any) -> Members:
        return {k: v for k, v in members.items() if k not in ("txt", "json")}

    assert {k: others(m) for k, m in outputs.items()} == {
        k: others(s.members) for k, s in source.samples.items() if k not in REJECTED
    }
    kinds = {extension for members in outputs.values() for extension in members}
    assert {"cls", "npy", "jpg", "jpeg", "png", "webp"} <= kinds


def test_members_keep_their_order(outputs: dict[str, Members], source: Source) -> None:
    for key, members in outputs.items():
        before = [e for e in source.samples[key].members if e in members]
        assert [e for e in members if e in before] == before


def test_every_sample_has_one_txt_and_one_json_of_constant_schema(
    outputs: dict[str, Members],
) -> None:
    for members in outputs.values():
        fields = fields_of(members)
        assert {name: type(fields[name]) for name in OWN} == dict.fromkeys(OWN, str)
        assert fields["caption"] == members["txt"].decode() != ""
        assert fields["recaption_model"] == "tiny"
        assert fields["recaption_prompt"] == "short"
        assert fields["recaption_finish_reason"] == "stop"
        assert fields["recaption_flags"] == ""


def test_captions_tell_pictures_apart(outputs: dict[str, Members], source: Source) -> None:
    assert len({m["txt"] for m in outputs.values()}) == len(outputs)


def expected_original(sample: Sample) -> str:
    if "txt" in sample.members:
        return sample.members["txt"].decode("utf-8", "replace")
    try:
        value = json.loads(sample.members["json"])["caption"]
    except (KeyError, TypeError, ValueError):
        return ""
    return value if isinstance(value, str) else ""


def test_original_captions(outputs: dict[str, Members], source: Source) -> None:
    for key, members in outputs.items():
        assert fields_of(members)["caption_original"] == expected_original(source.samples[key])
    by_hand = {
        "whole": "alt",
        "from_json": "from json",
        "bare": "",
        "null": "",
        "broken": "",
        "latin": "caf\ufffd",
        "wide": "画像 🙂\n",
    }
    for key, original in by_hand.items():
        assert fields_of(outputs[f"odd/{key}"])["caption_original"] == original


def source_fields(members: Members) -> dict[str, Any]:
    return {k: v for k, v in fields_of(members).items() if k not in OWN}


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("whole", {"source_caption": "j", "a": 1}),
        ("bare", {}),
        (
            "ours",
            {
                "source_caption": "c",
                "source_caption_original": 1,
                "source_recaption_model": [],
                "source_recaption_new": None,
                "source_watermark_score": 0.5,
            },
        ),
        ("taken", {"source_source_caption": "a", "source_caption": "b"}),
        ("list", {"source_json": "[1, 2]"}),
        ("broken", {"source_json": '{"caption": '}),
        ("null", {"source_caption": None, "alt": None}),
    ],
)
def test_source_fields_stay_or_move(
    outputs: dict[str, Members], key: str, fields: dict[str, Any]
) -> None:
    assert source_fields(outputs[f"odd/{key}"]) == fields


def test_the_first_of_the_image_keys_is_captioned(made: Made) -> None:
    """`two` has a png of 48 pixels and a jpg of 32: the jpg counts, and both stay."""
    two = next(r for r in rows(made.run, "odd.tar") if r["key"] == "odd/two")
    assert (two["width"], two["height"]) == (32, 32)
    members = read_run(made.run)["odd.tar"]["odd/two"]
    assert list(members)[:3] == ["png", "cls", "jpg"]


def test_every_sample_has_a_row(made: Made, source: Source) -> None:
    for name, samples in source.shards.items():
        found = rows(made.run, name)
        assert [(r["key"], r["index"]) for r in found] == [
            (s.key, i) for i, s in enumerate(samples)
        ]
        output = read_run(made.run)[name]
        for row, sample in zip(found, samples, strict=True):
            if sample.key in REJECTED:
                assert row["status"] == "rejected"
                assert row["caption"] == ""
                assert row["reason"]
            else:
                assert row["status"] == "captioned"
                assert row["reason"] == ""
                assert row["caption"] == output[sample.key]["txt"].decode()
                assert row["caption_original"] == expected_original(sample)
                assert row["finish_reason"] == "stop"
                assert row["tokens"] > 0
                assert row["tries"] == 1
                assert row["attempt"]
            if sample.picture:
                assert (row["width"], row["height"]) == (
                    sample.picture.width,
                    sample.picture.height,
                )


def test_reasons_say_what_is_wrong(made: Made) -> None:
    reasons = {r["key"]: r["reason"] for r in rows(made.run, "odd.tar")}
    assert "no image member" in reasons["odd/no_image"]
    assert "not a JPEG, PNG, WebP" in reasons["odd/no_picture"]
    assert "empty" in reasons["odd/empty"]


def test_markers_add_up(made: Made, source: Source) -> None:
    found = markers(made.run)
    assert list(found) == list(source.shards)
    for name, samples in source.shards.items():
        counts = found[name]["counts"]
        assert set(counts) == {"captioned", "filtered", "rejected", "failed"}
        assert sum(counts.values()) == len(samples)
        assert counts["rejected"] == sum(s.key in REJECTED for s in samples)


def test_a_whole_run_describes_itself(made: Made, source: Source) -> None:
    sizes = json.loads((made.run / "sizes.json").read_bytes())
    assert sizes == {name: len(samples) for name, samples in read_run(made.run).items()}
    card = (made.run / "README.md").read_text()
    assert 'data_files: "*.tar"' in card


def test_the_run_is_frozen_without_waste(made: Made, source: Source) -> None:
    frozen = json.loads((made.run / ".recaption/run.json").read_bytes())
    assert [s[0] for s in frozen["shards"]] == [str(source.folder / n) for n in source.shards]
    for name in ("journal", "leases", "failed", "tmp"):
        folder = made.run / ".recaption" / name
        assert not folder.exists() or not list(folder.iterdir()), name


def test_the_launch_says_where_things_are(made: Made) -> None:
    out = made.result.stdout
    assert f"run directory: {made.run}" in out
    assert "logs: " in out
    assert f"recaption.status {made.run}" in out
    assert "4 of 4 shards published" in out
    assert "60 captioned, 3 rejected" in out
