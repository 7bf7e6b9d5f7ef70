"""Columns of rows: what 0.1.0 wrote, in its order, and what is made of answers and back."""

from __future__ import annotations

from recaption.run.columns import Columns, split_flags
from recaption.run.rows import schema

FIXED = """\
key index status reason caption caption_original finish_reason tokens flags watermark_score width
height image_hash tries strikes attempt attempts""".split()
ANSWER = "caption finish_reason tokens flags".split()
ONE, TWO = Columns(("a",)), Columns(("a", "b"), ("watermark_score", "nice_score"))
ANSWERS = {
    "a": {"caption": "cat", "finish_reason": "stop", "tokens": 3, "flags": ""},
    "b": {"caption": "a cat", "finish_reason": "length", "tokens": 9, "flags": "truncated,short"},
}


def test_their_names_and_types_stay() -> None:
    assert list(ONE.names) == FIXED
    several = [f"{part}_{prompt}" for prompt in "ab" for part in ANSWER]
    assert list(TWO.names) == [*FIXED, "nice_score", *several]
    types = {field.name: str(field.type) for field in schema(TWO)}
    assert types["tokens_b"] == types["index"] == "int32"
    assert types["nice_score"] == types["watermark_score"] == "float"
    assert types["flags_b"] == types["attempts"] == "string"


def test_answers_and_back() -> None:
    row = TWO.answered(ANSWERS)
    assert row["caption"] == row["caption_a"] == "cat"
    assert row["tokens_b"] == 9
    assert TWO.answers_in(row) == ANSWERS
    assert ONE.answered({}) == {"caption": "", "finish_reason": "", "tokens": 0, "flags": ""}


def test_fields_of_the_json() -> None:
    """Tokens stand in rows alone; of a caption that was filtered the .json says nothing."""
    row = {"key": "k", **TWO.answered(ANSWERS)}
    assert TWO.fields(row)["recaption_flags_b"] == "truncated,short"
    assert not [name for name in TWO.fields(row) if "tokens" in name]
    hidden = TWO.hidden(row)
    assert set(TWO.fields(hidden).values()) == {""}
    assert (hidden["key"], hidden["tokens_b"]) == ("k", 9)


def test_flags() -> None:
    assert split_flags("truncated,short") == ["truncated", "short"]
    assert split_flags("") == split_flags(None) == []
