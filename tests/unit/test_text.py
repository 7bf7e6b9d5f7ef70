from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recaption.shard.text import merge_json, original_caption, parse_json

OWN = {"caption": "new", "caption_original": "old", "recaption_model": "m", "recaption_flags": ""}
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["caption", "source_caption", "source_source_caption", "recaption_x", "id"])


def test_txt_comes_before_json() -> None:
    assert original_caption(b"from txt", {"caption": "from json"}, "caption") == "from txt"
    assert original_caption(b"", {"caption": "from json"}, "caption") == ""
    assert original_caption(None, {"caption": "from json"}, "caption") == "from json"
    assert original_caption(None, {"alt": "x"}, "alt") == "x"


@pytest.mark.parametrize("fields", [{}, {"caption": None}, {"caption": 7}, {"caption": ["x"]}])
def test_a_caption_that_is_no_text_is_empty(fields: dict[str, object]) -> None:
    assert original_caption(None, fields, "caption") == ""


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert original_caption(b"caf\xe9", {}, "caption") == "caf\ufffd"


@pytest.mark.parametrize("content", [b"[1, 2]", b'"text"', b"null", b"{broken", b"", b"[" * 10**5])
def test_json_that_is_no_object_is_kept_as_text(content: bytes) -> None:
    assert parse_json(content) == {"source_json": content.decode()}


def test_no_json_is_no_field() -> None:
    assert parse_json(None) == {}


def test_source_fields_of_our_names_move() -> None:
    source = {
        "caption": "theirs",
        "recaption_status": "x",
        "watermark_score": None,
        "url": "u",
        "captions": [1],
    }
    assert json.loads(merge_json(source, OWN)) == {
        "source_caption": "theirs",
        "source_recaption_status": "x",
        "source_watermark_score": None,
        "url": "u",
        "captions": [1],
        **OWN,
    }


def test_a_moved_field_never_replaces_another() -> None:
    source = {"source_caption": "second", "caption": "first"}
    merged = json.loads(merge_json(source, OWN))
    assert merged["source_caption"] == "second"
    assert merged["source_source_caption"] == "first"


def test_numbers_that_json_does_not_know_are_still_readable() -> None:
    merged = merge_json(parse_json(b'{"score": NaN, "big": 1e999}'), OWN)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(merged, parse_constant=refuse)["caption"] == "new"


@given(st.dictionaries(names | st.text(), json_values, max_size=6))
def test_nothing_of_the_source_is_lost(source: dict[str, object]) -> None:
    merged = json.loads(merge_json(parse_json(json.dumps(source).encode()), OWN))
    assert {k: merged[k] for k in OWN} == OWN
    rest = [v for k, v in merged.items() if k not in OWN]
    assert sorted(map(repr, rest)) == sorted(map(repr, source.values()))
