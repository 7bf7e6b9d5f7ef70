"""The expressions of recaption.filter."""

from __future__ import annotations

import pytest

from recaption.errors import UserError
from recaption.filter.where import Where

ROW = {"caption": "A red Dog", "tokens": 12, "score": 0.25, "truncated": False, "key": "a/b"}
EXAMPLE = {"caption": "", "tokens": 17, "score": 0.37, "truncated": False, "key": ""}

TRUE = """\
score < 0.5
score<0.5 and not truncated
0.2 <= score <= 0.25
tokens == 12 or score > 1
not (tokens != 12 or truncated)
'Dog' in caption
'cat' not in caption
"dog" in lower(caption)
tokens in [1, 12]
key in ('a/b', 'c')
len(caption) == 9
words(caption) == 3
(tokens - 2) * 2 / 4 + 1 == 6
-score < 0
caption > 'A'
truncated == False
score < 1 and (tokens > 12 or key == "a/b")
True
""".splitlines()


@pytest.mark.parametrize("text", TRUE)
def test_true_and_its_negation(text: str) -> None:
    assert Where(text, EXAMPLE)(ROW) is True
    assert Where(f"not ({text})", EXAMPLE)(ROW) is False


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("scores < 1", "did you mean score?"),
        ("score <", "cannot be read"),
        ("", "cannot be read"),
        ("score", "is a number, not true or false"),
        ("caption < 3", "a text cannot be compared with a number"),
        ("score < 0.5 or caption", "caption: is a text"),
        ("truncated or tokens", "tokens: is a number"),
        ("score = 1", "cannot be read"),
        ("'a' in tokens", "cannot be compared"),
        ("tokens in ['a']", "cannot be compared"),
        ("tokens in []", "list of numbers, or of texts"),
        ("caption * 3 == ''", "caption: is a text, a number is needed"),
        ("tokens ** 9 > 1", "is not of the language"),
        ("caption.upper() == ''", "is not of the language"),
        ("__import__('os')", "valid choices are len, lower, words"),
        ("(lambda: True)()", "is not of the language"),
        ("[x for x in caption] == 1", "is not of the language"),
        ("caption[0] == 'A'", "is not of the language"),
        ("len(caption, 2) == 1", "is not of the language"),
        ("len(tokens) == 1", "tokens: is a number, a text is needed"),
        ("tokens is 3", "not by `is`"),
        ("tokens / 0 > 1", "has no value"),
        ("b'a' in caption", "is not of the language"),
        ("f'{tokens}' == ''", "is not of the language"),
        ("(y := 3) == 3", "is not of the language"),
        ("(" * 300 + "True" + ")" * 300, "--where"),
        ("score < 1" + " or score < 1" * 300, "longer than"),
    ],
)
def test_mistakes_are_named(text: str, named: str) -> None:
    """Before any row is looked at; all that a text can do is be refused."""
    with pytest.raises(UserError, match="--where") as refused:
        Where(text, EXAMPLE)
    assert named in str(refused.value)


def test_a_row_without_a_value() -> None:
    with pytest.raises(UserError, match="score: has no value"):
        Where("score < 1", EXAMPLE)({**ROW, "score": None})


def test_a_division_that_fails_in_a_row_alone() -> None:
    with pytest.raises(UserError, match="has no value"):
        Where("1 / (tokens - 12) > 0", EXAMPLE)(ROW)
