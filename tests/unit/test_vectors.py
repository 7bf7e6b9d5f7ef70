"""An expression over whole columns says of each row what it says of the row alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recaption.config.schema import FLAGS
from recaption.errors import UserError
from recaption.filter.columnwise import fulfilled
from recaption.filter.names import examples, fulfilling, names_of
from recaption.filter.where import Where
from recaption.run.columns import Columns

COLUMNS = {
    "caption": pa.string(),
    "key": pa.string(),
    "tokens": pa.int32(),
    "width": pa.int32(),
    "score": pa.float32(),
    "truncated": pa.bool_(),
}
EXAMPLE = {
    "caption": "",
    "key": "",
    "tokens": 17,
    "width": 17,
    "score": 0.37,
    "truncated": False,
}
WORDS = [
    "a",
    "Dog",
    "it's",
    "don''t",
    "x_1",
    "2",
    "-",
    "’",
    "l’été",
    "ΣΑΣ",
    "İ",
    "ß",
    "日本",
    "\0",
    ",",
]

words = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
texts = st.lists(words, max_size=5).map(" ".join) | st.lists(words, max_size=3).map("".join)
numbers = st.sampled_from([0, 1, 12, 17, 2**24 + 1, 2**31 - 1, -(2**31)])
cells: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): texts,
    pa.int32(): numbers | st.integers(-(2**31), 2**31 - 1),
    pa.float32(): st.sampled_from([0.0, -0.0, 0.1, 0.5, 12.0]) | st.floats(width=32),
    pa.bool_(): st.booleans(),
}
whole = st.sampled_from([0, 1, 12, 2**24 + 1, 2**53 + 1, 2**62, 2**63, 2**70]) | st.integers(0, 9)
literals = {
    "number": whole.map(repr) | st.sampled_from("0.0 0.1 0.5 12.0 1e16 1e308 1e999".split()),
    "text": texts.map(repr) | st.just("'\\ud800'"),
}
names = {
    "number": st.sampled_from(["tokens", "width", "score"]),
    "text": st.sampled_from(["caption", "key"]),
}


def composed(form: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda made: form.format(*made))


plain = literals["text"] | names["text"] | names["text"]
text_of = plain | composed("lower({})", plain)
leaves = literals["number"] | names["number"] | names["number"]
leaves |= composed("{}({})", st.sampled_from(["len", "words"]), text_of)
number_of = st.recursive(
    leaves,
    lambda n: composed("({} {} {})", n, st.sampled_from("+-*/"), n) | composed("(-{})", n),
    max_leaves=4,
)
order = st.sampled_from(["<", "<=", "==", "!=", ">", ">="])
membership = st.sampled_from(["in", "not in"])


def listed(kind: str) -> st.SearchStrategy[str]:
    elements = st.lists(literals[kind] | literals[kind] | names[kind], min_size=1, max_size=4)
    return elements.map(lambda found: f"[{', '.join(found)}]")


truths = st.recursive(
    st.one_of(
        st.sampled_from(["truncated", "True", "False"]),
        composed("{} {} {}", number_of, order, number_of),
        composed("{} {} {} {} {}", number_of, order, number_of, order, number_of),
        composed("{} {} {}", text_of, order, text_of),
        composed("{} {} {}", text_of, membership, text_of),
        composed("{} {} {} {} {}", text_of, order, text_of, membership, text_of),
        composed("{} {} {}", number_of, membership, listed("number")),
        composed("{} {} {}", text_of, membership, listed("text")),
    ),
    lambda t: st.one_of(
        composed("({} {} {})", t, st.sampled_from(["and", "or"]), t),
        composed("(not {})", t),
        composed("(({}) {} ({}))", t, st.sampled_from(["==", "!="]), t),
    ),
    max_leaves=4,
)
row = st.fixed_dictionaries({name: cells[kind] for name, kind in COLUMNS.items()})
gap = st.none() | st.none() | st.none() | st.sampled_from(sorted(COLUMNS))


@given(text=truths, rows=st.lists(row, max_size=6), missing=gap)
def test_as_row_by_row(text: str, rows: list[dict[str, Any]], missing: str | None) -> None:
    try:
        where = Where(text, EXAMPLE)
    except UserError:
        assume(False)  # it divides the example's values by zero
    if missing and rows:
        rows[-1] = {**rows[-1], missing: None}
    table = {n: pa.array([r[n] for r in rows], COLUMNS[n]) for n in sorted(where.used)}
    try:
        expected: Any = [where(dict(r)) for r in pa.table(table).to_pylist()] if table else []
        expected = expected if table else [where({})] * len(rows)
    except UserError as e:
        expected = str(e)
    try:
        found: Any = fulfilled(where, table, len(rows))
    except UserError as e:
        found = str(e)
    assert found == expected


QUICK = """\
score < 0.5 and not truncated
0.2 <= score <= tokens / 40 or key in ('a/b', 'c')
(tokens - 2) * 2 / 4 + 1 == 6
tokens in [1, 12, 0.5] and tokens not in [2]
'Dog' in caption and 'cat' not in lower(caption)
len(caption) >= 9 and words(caption) == 3
-score < 0 and caption > 'A'
True
truncated == (1 < 2 / 4)
""".splitlines()


@pytest.mark.parametrize("text", QUICK)
def test_no_row_is_looked_at(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"caption": "A red Dog", "key": "a/b", "tokens": 12, "score": 0.25, "truncated": False},
        {"caption": "Ein Hündchen", "key": "c", "tokens": 1, "score": 0.5, "truncated": True},
    ]
    where = Where(text, EXAMPLE)
    expected = [where(r) for r in rows]  # type: ignore[arg-type]
    monkeypatch.delattr(Where, "__call__")
    table = {n: pa.array([r[n] for r in rows], COLUMNS[n]) for n in where.used}
    assert fulfilled(where, table, len(rows)) == expected


flags = st.lists(st.sampled_from(FLAGS), unique=True).map(",".join)


@given(st.lists(st.tuples(flags, flags, numbers, numbers), max_size=5))
def test_names_that_are_no_columns(rows: list[tuple[str, str, int, int]]) -> None:
    """A flag is one of a list's, of any prompt or of one; min_side is of both sides."""
    names = ("flags_a", "flags_b", "width", "height")
    kinds = [pa.string(), pa.string(), pa.int32(), pa.int32()]
    table = pa.table([*map(pa.array, zip(*rows, strict=True), kinds)], names) if rows else None
    table = table or pa.schema(list(zip(names, kinds, strict=True))).empty_table()
    known = names_of(Columns(("a", "b")))
    made = {name: known[name].made(table).to_pylist() for name in ("min_side", *FLAGS)}
    assert made["min_side"] == [min(w, h) for _, _, w, h in rows]
    for flag in FLAGS:
        a, b = ([flag in r[i].split(",") for r in rows] for i in (0, 1))
        assert known[f"{flag}_a"].made(table).to_pylist() == a
        assert known[f"{flag}_b"].made(table).to_pylist() == b
        assert made[flag] == [one or other for one, other in zip(a, b, strict=True)]


def test_what_can_be_named() -> None:
    """Columns of a captioned sample that are there, min_side, and flags."""
    one, two = names_of(Columns(("a",))), names_of(Columns(("a", "b"), ("nice_score",)))
    assert {"caption", "tokens", "min_side", "truncated", "image_hash"} <= set(one)
    assert not {"status", "reason", "attempts", "watermark_score", "truncated_a"} & set(one)
    assert set(two) - set(one) == {
        "nice_score",
        *(
            f"{c}_{p}"
            for p in "ab"
            for c in ("caption", "finish_reason", "tokens", "flags", *FLAGS)
        ),
    }


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    """Of captioned rows; what else a sidecar holds, or lacks, makes no difference."""
    path = tmp_path / "some.parquet"
    states, scores = ["captioned", "rejected", "captioned"], [0.25, None, 0.75]
    pq.write_table(pa.table({"status": states, "watermark_score": scores}), path)
    columns = Columns(("a",), ("watermark_score",))
    where = Where("watermark_score < 0.5", examples(columns))
    assert fulfilling(path, columns, where) == [True, False]
