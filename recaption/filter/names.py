"""The names that an expression on a run's rows may use, and how columns become their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recaption.config.schema import FLAGS
from recaption.filter.columnwise import fulfilled
from recaption.filter.where import Value, Where
from recaption.run.columns import REAL, TEXT, WHOLE, Columns
from recaption.run.rows import CAPTIONED, read_table

EXAMPLES: dict[str, Value] = {TEXT: "", WHOLE: 17, REAL: 0.37}
UNUSED = ("status", "reason", "attempts")  # of no use for choosing among captioned samples


@dataclass(frozen=True)
class Name:
    """A name: `example` is a value of its type; `make` makes its values from columns."""

    example: Value
    columns: tuple[str, ...]
    make: Callable[..., pa.Array]

    def made(self, table: pa.Table) -> pa.Array:
        return self.make(*(table[name].combine_chunks() for name in self.columns))


def names_of(columns: Columns) -> dict[str, Name]:
    """Every name: columns, min_side, and each flag, for any prompt and for each one."""
    found = {
        c.name: Name(EXAMPLES[c.type], (c.name,), lambda values: values)
        for c in columns.all
        if c.name not in UNUSED and (c.type != REAL or c.name in columns.scores)
    }
    found["min_side"] = Name(17, ("width", "height"), _smaller)
    for flag in FLAGS:
        flagged = partial(_flagged, flag)
        found[flag] = Name(False, columns.flags, flagged)
        for prompt, column in zip(columns.prompts, columns.flags, strict=True):
            found[columns.called(flag, prompt)] = Name(False, (column,), flagged)
    return found


def examples(columns: Columns) -> dict[str, Value]:
    """What an expression is checked with."""
    return {name: known.example for name, known in names_of(columns).items()}


def fulfilling(sidecar: Path, columns: Columns, where: Where) -> list[bool]:
    """For each captioned row whether it fulfills the expression; only what that needs is read."""
    names = {name: known for name, known in names_of(columns).items() if name in where.used}
    needed = {column for name in names.values() for column in name.columns}
    table = read_table(sidecar, ["status", *needed])
    table = table.filter(pc.equal(table["status"], CAPTIONED))
    return fulfilled(where, {n: name.made(table) for n, name in names.items()}, table.num_rows)


def _smaller(width: pa.Array, height: pa.Array) -> pa.Array:
    return pc.min_element_wise(width, height, skip_nulls=False)


def _flagged(flag: str, *columns: pa.Array) -> pa.Array:
    """For each row, whether one of the columns lists the flag."""
    lists = (pc.binary_join_element_wise("", flags, "", ",") for flags in columns)
    return reduce(pc.or_, (pc.match_substring(flags, f",{flag},") for flags in lists))
