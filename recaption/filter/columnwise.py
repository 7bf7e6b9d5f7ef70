"""Computes expressions over whole columns with pyarrow, if that means the same as row by row.

This is decided for each expression and each table. Integers have 64 bits and are checked for overflow;
integers that meet floats must be exact as floats. Divisions by zero and missing values are left to the
evaluator of rows, which reports them. Case and words of texts that are not ASCII are computed by
Python, since RE2's Unicode differs.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from recaption.filter.where import FUNCTIONS, Value, Where

Values: TypeAlias = pa.Array | pa.Scalar  # a scalar is the same for every row
ARITHMETIC: dict[type[ast.operator], Callable[..., Values]] = {
    ast.Add: pc.add_checked,
    ast.Sub: pc.subtract_checked,
    ast.Mult: pc.multiply_checked,
    ast.Div: pc.divide_checked,
}
COMPARISONS: dict[type[ast.cmpop], Callable[..., Values]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
WORD = "[0-9A-Za-z]+(?:'[0-9A-Za-z]+)*"  # model.quality's, of ASCII texts
ASCII: dict[str, Callable[[pa.Array], pa.Array]] = {  # what is so of ASCII texts alone
    "lower": pc.ascii_lower,
    "words": lambda texts: pc.count_substring_regex(texts, WORD).cast(pa.int64()),
}


class RowByRow(Exception):
    """Raised if pyarrow has no function with the same meaning."""


def fulfilled(where: Where, columns: Mapping[str, pa.Array], rows: int) -> list[bool]:
    """For each row, whether it fulfills the expression; `columns` holds the names that it uses.

    Raises the UserError that the expression raises for the first row without a value.
    """
    try:
        found = _Vectors(where, columns).of(where.tree)
    except (RowByRow, pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        values = {name: column.to_pylist() for name, column in columns.items()}
        return [where({name: v[i] for name, v in values.items()}) for i in range(rows)]
    many: list[bool] = found.to_pylist() if isinstance(found, pa.Array) else [found.as_py()] * rows
    return many


class _Vectors:
    """Computes the nodes of an expression whose types where.py has checked."""

    def __init__(self, where: Where, columns: Mapping[str, pa.Array]) -> None:
        if any(column.null_count for column in columns.values()):
            raise RowByRow
        self.where = where
        self.columns = {name: _wide(column) for name, column in columns.items()}

    def of(self, node: ast.expr) -> Values:
        if not self._varies(node):
            return _wide(pa.scalar(self.where.value(node, {})))
        match node:
            case ast.Name(id=name):
                return self.columns[name]
            case ast.BoolOp(op=op, values=parts):
                both = pc.and_ if isinstance(op, ast.And) else pc.or_
                return reduce(both, map(self.of, parts))
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return pc.invert(self.of(part))
            case ast.UnaryOp(op=ast.USub(), operand=part):
                return pc.negate_checked(self.of(part))
            case ast.BinOp(left=left, op=op, right=right):
                one, other = _alike(self.of(left), self.of(right), isinstance(op, ast.Div))
                return ARITHMETIC[type(op)](one, other)
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others], ops, others, strict=False)
                return reduce(pc.and_, (self._compared(*pair) for pair in pairs))
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                return _called(name, self.of(argument))
        raise RowByRow  # a list with names in it

    def _varies(self, node: ast.expr) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self.columns for n in ast.walk(node))

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Values:
        if isinstance(op, ast.NotIn):
            return pc.invert(self._compared(left, ast.In(), right))
        if isinstance(op, ast.In):
            return self._in(left, right)
        return COMPARISONS[type(op)](*_alike(self.of(left), self.of(right)))

    def _in(self, left: ast.expr, right: ast.expr) -> Values:
        if not self._varies(right):
            several = self.where.value(right, {})
            if isinstance(several, tuple):
                return _among(self.of(left), several)
        elif not self._varies(left):
            return pc.match_substring(self.of(right), self.where.value(left, {}))
        raise RowByRow  # whether texts of a column are in one text, or in those of another column


def _wide(values: Values) -> Values:
    """Numbers as 64-bit integers or floats."""
    if pa.types.is_integer(values.type):
        return values.cast(pa.int64())
    return values.cast(pa.float64()) if pa.types.is_floating(values.type) else values


def _alike(one: Values, other: Values, divided: bool = False) -> tuple[Values, Values]:
    """Two values as one type: an integer becomes a float if it meets one or is divided."""
    floating = [pa.types.is_floating(v.type) for v in (one, other)]
    if any(floating) != all(floating) or (divided and not all(floating)):
        return one.cast(pa.float64()), other.cast(pa.float64())
    return one, other


def _among(values: Values, several: Sequence[Any]) -> Values:
    if isinstance(several[0], str):
        return pc.is_in(values, value_set=pa.array(several))
    return reduce(pc.or_, (pc.equal(*_alike(values, _wide(pa.scalar(v)))) for v in several))


def _called(name: str, texts: pa.Array) -> pa.Array:
    if name == "len":
        return pc.utf8_length(texts).cast(pa.int64())
    foreign = pc.invert(pc.string_is_ascii(texts))
    quick = ASCII[name](texts)
    own: list[Value] = [FUNCTIONS[name](text) for text in texts.filter(foreign).to_pylist()]
    return pc.replace_with_mask(quick, foreign, pa.array(own, quick.type))
