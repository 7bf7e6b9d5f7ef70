from __future__ import annotations

from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recaption.config.schema import Prompt
from recaption.errors import SampleError, UserError
from recaption.model.prompt import Values, check_prompts, fields_of, fill
from recaption.shard.rules import FirstRules

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
    found = fields_of(prompt("{json.a.b} {caption}"))
    assert [(f.source, f.name) for f in found] == [("json", "a.b"), ("caption", "")]
    assert fill("{json.a.b}", Values(None, {"a.b": "x"}, {}), same) == "x"
    assert fill("{json.a.b}", Values(None, {"a": {"b": "y"}}, {}), same) == "y"
    assert fill("{json.a.b}", Values(None, {"a.b": "x", "a": {"b": "y"}}, {}), same) == "x"


def test_a_word_stands_for_a_missing_field() -> None:
    text = "{caption|none: yet!}, {json.a.b|} {json.c|x|y}{captions.z|{{}"
    assert fill("{caption|none: yet!}, {json.a.b|} {json.c|x|y}", NOTHING, same) == (
        "none: yet!,  x|y"
    )
    assert fill("{caption|none}", Values("", {}, {}), same) == "", "an empty caption is one"
    assert fill("{json.a|none}", Values(None, {"a": 0}, {}), same) == "0"
    with pytest.raises(UserError, match="brace"):
        fields_of(prompt(text))


def test_by_the_first_rules_a_field_has_no_word_and_nothing_inside() -> None:
    values = Values(None, {"a|b": "flat", "c": {"d": "nested"}}, {}, FirstRules())
    assert fill("{json.a|b}", values, same) == "flat"
    for text in ("{json.c.d}", "{json.c|x}"):
        with pytest.raises(SampleError, match="missing"):
            fill(text, values, same)


def test_fields_are_cut_and_the_prompt_is_not() -> None:
    values = Values("a long caption", {"x": "short"}, {})
    assert fill("A long prompt: {caption} {json.x}", values, same, 6) == (
        "A long prompt: a long short"
    )


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
        "{json.x:>9}",
        "{json.x!r}",
        "{json.x:}",
        "{|word}",
        "{json|word}",
        "{caption",
        "{{caption}",
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


@given(st.text(alphabet="{}ab.|", max_size=12))
def test_what_the_first_version_took_is_taken_in_the_same_way(text: str) -> None:
    """Prompts of 0.1.0, which Formatter parsed, are filled in as they were."""
    text = text.replace("a", "json.a")
    try:
        parsed = list(Formatter().parse(text))
        names = [name for _, name, *_ in parsed if name is not None]
    except ValueError:
        return
    if any(not n.startswith("json.") or n.endswith(".") for n in names):
        return
    fields = {name.removeprefix("json."): f"<{name}>" for name in names}
    wanted = "".join(lit + (f"<{name}>" if name is not None else "") for lit, name, *_ in parsed)
    assert fill(text, Values(None, fields, {}, FirstRules()), same) == wanted
