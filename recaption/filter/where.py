"""A small language for choosing rows by their columns; it is parsed, and nothing is ever executed.

Columns of numbers and texts; true and false names such as `truncated`; numbers, texts in quotes,
lists of them; `== != < <= > >=`, `in`, `and`, `or`, `not`, `+ - * /` of numbers, parentheses;
`len(TEXT)` in characters, `words(TEXT)` counted, `lower(TEXT)`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeAlias

from recaption.errors import UserError, bad_choice, bad_value
from recaption.model import quality

OPTION = "--where"
LONGEST = 2000
Value: TypeAlias = float | int | str | bool | tuple[float | int | str, ...]
NUMBER, TEXT, TRUTH, LIST = "a number", "a text", "true or false", "a list"
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
FUNCTIONS: dict[str, Callable[[str], Value]] = {
    "len": len,
    "words": lambda text: len(quality.words(text)),
    "lower": str.lower,
}


class Where:
    """A checked expression over rows; `names` has an example value for every valid name."""

    def __init__(self, text: str, names: Mapping[str, Value]) -> None:
        """Raises UserError for an expression that is not valid or compares values of different types."""
        self.text, self.names = text.strip(), names
        try:
            if len(text) > LONGEST:
                raise SyntaxError(f"longer than {LONGEST} characters")
            self.tree = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as e:
            reason = e.msg if isinstance(e, SyntaxError) else str(e)
            raise bad_value(OPTION, text, f"cannot be read: {reason}") from None
        try:
            result = self.value(self.tree, names)
        except RecursionError:
            raise bad_value(OPTION, text, "has too many levels") from None
        if _kind(result) != TRUTH:
            raise self._wrong(self.tree, f"is {_kind(result)}, not {TRUTH}; compare it")

    @cached_property
    def used(self) -> set[str]:
        """The names that the expression uses."""
        nodes = ast.walk(self.tree)
        return {n.id for n in nodes if isinstance(n, ast.Name) and n.id in self.names}

    def __call__(self, values: Mapping[str, Value]) -> bool:
        """Whether a row with these values fulfills the expression."""
        return bool(self.value(self.tree, values))

    def value(self, node: ast.expr, values: Mapping[str, Value]) -> Value:
        """The value of a part of the expression in a row; a list becomes a tuple."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.Name(id=name):
                if name not in self.names:
                    raise bad_choice(OPTION, name, self.names)
                if values[name] is None:
                    raise self._wrong(node, "has no value in some samples of this run")
                return values[name]
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                return self._list(node, [self.value(e, values) for e in elements])
            case ast.BoolOp(op=op, values=parts):
                truths = [self._of(p, values, TRUTH) for p in parts]
                return all(truths) if isinstance(op, ast.And) else any(truths)
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return not self._of(part, values, TRUTH)
            case ast.UnaryOp(op=ast.USub(), operand=part):
                number: float = self._of(part, values, NUMBER)
                return -number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return self._arithmetic(node, op, left, right, values)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._compare(left, ops, others, values)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
                if name not in FUNCTIONS:
                    raise bad_choice(f"{OPTION} function", name, FUNCTIONS)
                return FUNCTIONS[name](self._of(argument, values, TEXT))
        raise self._wrong(node, "is not of the language; see --help")

    def _of(self, node: ast.expr, values: Mapping[str, Value], kind: str) -> Any:
        value = self.value(node, values)
        if _kind(value) != kind:
            raise self._wrong(node, f"is {_kind(value)}, {kind} is needed there")
        return value

    def _arithmetic(
        self,
        node: ast.expr,
        op: ast.operator,
        left: ast.expr,
        right: ast.expr,
        values: Mapping[str, Value],
    ) -> Value:
        numbers = self._of(left, values, NUMBER), self._of(right, values, NUMBER)
        try:
            result: float = ARITHMETIC[type(op)](*numbers)
        except (ZeroDivisionError, OverflowError) as e:
            raise self._wrong(node, f"has no value: {e}") from None
        return result

    def _compare(
        self,
        left: ast.expr,
        ops: list[ast.cmpop],
        others: list[ast.expr],
        values: Mapping[str, Value],
    ) -> bool:
        holds = True
        first = self.value(left, values)
        for op, other in zip(ops, others, strict=True):
            if type(op) not in COMPARISONS:
                raise self._wrong(left, "can be compared by == != < <= > >= in, not by `is`")
            second = self.value(other, values)
            if not _comparable(first, op, second):
                how = f"{_kind(first)} cannot be compared with {_kind(second)} like this"
                raise self._wrong(other, how)
            holds = COMPARISONS[type(op)](first, second) and holds
            first = second
        return holds

    def _list(self, node: ast.expr, elements: list[Value]) -> Value:
        if {_kind(e) for e in elements} not in ({NUMBER}, {TEXT}):
            raise self._wrong(node, "must be a list of numbers, or of texts")
        return tuple(elements)  # type: ignore[arg-type]

    def _wrong(self, node: ast.expr, why: str) -> UserError:
        return bad_value(OPTION, self.text, f"{ast.unparse(node)}: {why}")


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return TRUTH
    if isinstance(value, tuple):
        return LIST
    return TEXT if isinstance(value, str) else NUMBER


def _comparable(first: Value, op: ast.cmpop, second: Value) -> bool:
    kinds = _kind(first), _kind(second)
    if isinstance(op, ast.In | ast.NotIn):
        if kinds[1] == LIST:
            return bool(second) and _kind(second[0]) == kinds[0]  # type: ignore[index]
        return kinds == (TEXT, TEXT)
    if isinstance(op, ast.Eq | ast.NotEq):
        return kinds[0] == kinds[1] != LIST
    return kinds in ((NUMBER, NUMBER), (TEXT, TEXT))
