from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recaption.config.schema import Prompt
from recaption.errors import SampleError, UserError
from recaption.prompt import Values, check_prompts, fields_of, fill

NOTHING = Values(None, {}, {})


def same(text: str) -> str:
    return text


def prompt(text: str, name: str = "p", system: str | None = None) -> Prompt:
    return Prompt(name=name, text=text, system=system)


def test_fields_are_filled_in() -> None:
    values = Values("a cat", {"alt": "x", "width": 7, "tags": ["a"]}, {"short": "s"})
    text = "{caption}|{json.alt}|{json.width}|{json.tags}|{captions.short}|{{caption}}"
    assert fill(text, values, same) == "a cat|x|7|['a']|s|{caption}"


def test_values_are_not_filled_in_again() -> None:
    assert fill("{caption}", Values("{json.x} {{", {"x": "y"}, {}), same) == "{json.x} {{"


def test_foreign_values_are_cleaned_and_the_prompt_is_not() -> None:
    assert fill("a{caption}a", Values("aba", {}, {}), lambda v: v.replace("a", "")) == "aba"


@pytest.mark.parametrize("text", ["{caption}", "{json.alt}", "{json.none}", "{captions.short}"])
def test_a_missing_field_is_the_samples_error(text: str) -> None:
    with pytest.raises(SampleError, match=text):
        fill(text, Values(None, {"none": None}, {}), same)


def test_fields_have_dots_in_json_names_only() -> None:
    assert fields_of(prompt("{json.a.b} {caption}")) == ["json.a.b", "caption"]
    assert fill("{json.a.b}", Values(None, {"a.b": "x"}, {}), same) == "x"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "}",
        "{}",
        "{0}",
        "{unknown}",
        "{json.}",
        "{json}",
        "{caption!r}",
        "{caption:>9}",
        "{a b}",
    ],
)
def test_wrong_braces_are_refused_with_the_key(text: str) -> None:
    with pytest.raises(UserError, match=r"prompt\.text"):
        fields_of(prompt(text))
    with pytest.raises(UserError, match=r"prompt\.system"):
        fields_of(prompt("x", system=text))


def test_a_prompt_may_use_the_answer_of_an_earlier_one_only() -> None:
    first, second = prompt("x", "first"), prompt("{captions.first}", "second")
    check_prompts([first, second])
    with pytest.raises(UserError, match="first"):
        check_prompts([second, first])
    with pytest.raises(UserError, match="first"):
        check_prompts([second])


def test_names_of_prompts_differ() -> None:
    with pytest.raises(UserError, match="differ"):
        check_prompts([prompt("x"), prompt("y")])


@given(st.text())
def test_doubled_braces_are_literal(text: str) -> None:
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert fields_of(prompt(escaped)) == []
    assert fill(escaped, NOTHING, same) == text
