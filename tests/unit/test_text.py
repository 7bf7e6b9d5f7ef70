from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recaption.shard.rules import BY_NUMBER, FirstRules, Rules
from recaption.shard.text import clean, decode, lookup, merge_json, parse_json

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


@pytest.mark.parametrize("value", [None, 7, [], [None, "x"], [["x"]], {"text": "x"}])
def test_a_caption_that_is_no_text_is_none(value: object) -> None:
    assert Rules().caption(value) is FirstRules().caption(value) is None


def test_of_a_list_of_texts_the_first_is_the_caption() -> None:
    assert Rules().caption(["a \ud800", "b"]) == "a ?"
    assert FirstRules().caption(["a", "b"]) is None


MARKED = {
    "utf-8-sig": "größe 画像".encode("utf-8-sig"),
    "utf-16-le": "\ufeffgröße 画像".encode("utf-16-le"),
    "utf-16-be": "\ufeffgröße 画像".encode("utf-16-be"),
    "utf-32-le": "\ufeffgröße 画像".encode("utf-32-le"),
    "utf-32-be": "\ufeffgröße 画像".encode("utf-32-be"),
    "none": "größe 画像".encode(),
}


@pytest.mark.parametrize("mark", MARKED)
def test_text_is_read_as_its_byte_order_mark_says(mark: str) -> None:
    assert decode(MARKED[mark]) == "größe 画像"


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert decode(b"caf\xe9") == FirstRules().decode(b"caf\xe9") == "caf\ufffd"
    assert decode(b"\xff\xfea\0\0\xd8b\0") == "a\ufffdb"  # half a pair


def test_text_is_kept_in_the_bytes_it_has() -> None:
    latin = "größe".encode("latin-1")
    assert Rules().kept(latin, decode(latin)) == latin
    assert FirstRules().kept(latin, decode(latin)) == "gr\ufffd\ufffde".encode()
    assert Rules().kept(None, "größe") == FirstRules().kept(None, "größe") == "größe".encode()


def test_nested_fields() -> None:
    fields = {"meta": {"alt": "x", "none": None, "a.b": {"c": 1}}, "meta.alt2": "y", "meta.x": 1}
    assert lookup(fields, "meta.alt") == "x"
    assert lookup(fields, "meta.alt2") == "y"
    assert lookup(fields, "meta.a.b.c") == 1
    assert lookup(fields, "meta") == fields["meta"]
    for missing in ("meta.none", "meta.nothing", "meta.alt.x", "none", "a.b", "", ".", "meta."):
        assert lookup(fields, missing) is None
    assert FirstRules().value(fields, "meta.alt") is None
    assert FirstRules().value(fields, "meta.alt2") == "y"


@given(st.dictionaries(st.text(), json_values, max_size=4), st.text(), st.text())
def test_a_flat_field_wins_over_a_nested_one(
    fields: dict[str, object], outer: str, inner: str
) -> None:
    path = f"{outer}.{inner}"
    fields |= {path: "flat", outer: {inner: "nested"}}
    assert lookup(fields, path) == "flat"
    del fields[path]
    if outer:
        assert lookup(fields, path) == "nested"


@pytest.mark.parametrize("content", [b"[1, 2]", b'"text"', b"null", b"{broken", b"", b"[" * 10**5])
def test_json_that_is_no_object_is_kept_as_text(content: bytes) -> None:
    for rules in BY_NUMBER.values():
        assert rules.fields(content) == {"source_json": content.decode()}


ODD = {
    "BOM": '{"a": "ä"}'.encode("utf-8-sig"),
    "UTF-16": '{"a": "ä"}'.encode("utf-16"),
    "UTF-16 without mark": '{"a": "ä"}'.encode("utf-16-be"),
    "zeros": '{"a": "ä"}'.encode() + bytes(500),
    "UTF-16 and zeros": '{"a": "ä"}'.encode("utf-16-le") + bytes(500),
}


@pytest.mark.parametrize("what", ODD)
def test_json_that_some_writers_leave_is_read(what: str) -> None:
    assert parse_json(ODD[what]) == {"a": "ä"}
    assert list(FirstRules().fields(ODD[what])) == ["source_json"]


def test_json_with_raw_control_characters() -> None:
    assert parse_json(b'{"a": "x\ty\nz\x01"}') == {"a": "x\ty\nz\x01"}
    assert list(FirstRules().fields(b'{"a": "x\ty"}')) == ["source_json"]


def test_latin_json_keeps_its_fields() -> None:
    """As ever: what is no UTF-8 is U+FFFD, the rest is read."""
    for rules in BY_NUMBER.values():
        assert rules.fields('{"a": "é", "b": 1}'.encode("latin-1")) == {"a": "\ufffd", "b": 1}


def _by_the_first_rules(content: bytes) -> dict[str, object]:
    """0.1.0's recaption.shard.text.parse_json."""

    def finite(number: str) -> float | None:
        return float(number) if math.isfinite(float(number)) else None

    text = content.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"source_json": text}


encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-le", "latin-1"])
objects = st.dictionaries(names | st.text(), json_values, max_size=6)


@given(objects, encodings, st.integers(0, 9), st.booleans())
def test_fields_are_read_from_any_encoding(
    source: dict[str, object], encoding: str, zeros: int, plain: bool
) -> None:
    content = json.dumps(source, ensure_ascii=plain or encoding == "latin-1")
    made = content.encode(encoding, "replace") + bytes(4 * zeros)
    assert parse_json(made) == json.loads(content.encode("utf-8", "replace"))
    assert FirstRules().fields(made) == _by_the_first_rules(made)


@given(st.binary() | st.text().map(lambda t: f'{{"caption": {t}}}'.encode("utf-8", "replace")))
def test_any_bytes_are_read_and_written_again(content: bytes) -> None:
    for rules in BY_NUMBER.values():
        assert clean(rules.decode(content)) == rules.decode(content)
        merged = json.loads(merge_json(rules.fields(content), OWN))
        assert {k: merged[k] for k in OWN} == OWN
    assert FirstRules().decode(content) == content.decode("utf-8", "replace")
    assert FirstRules().fields(content) == _by_the_first_rules(content)
    assert Rules().kept(content, "") == content


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
