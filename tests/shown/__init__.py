"""Which test shows the effect of each key, preset, command and flag: what an entry may say.

An entry is `test = "tests/…/test_x.py::test_y"` (or a list of them; a class's method is
`path::TestClass::test_y`), or `benchmark = "benchmarks/x.py"` with a `date`, where the effect needs
a GPU, or `missing = "why"`.
"""

from __future__ import annotations

import ast
import datetime
import functools
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ("benchmarks/", "recaption/bench/")


def exists(name: str) -> bool:
    """Whether a test of this name, with or without the id of a parameter, is in its file."""
    path, _, function = name.partition("[")[0].partition("::")
    return function in _tests(path)


def problems(entry: dict[str, Any]) -> list[str]:
    """What is wrong with an entry, in words; none where it is sound."""
    match sorted(entry):
        case ["test"]:
            names = entry["test"] if isinstance(entry["test"], list) else [entry["test"]]
            gone = [f"there is no test {name}" for name in names if not exists(name)]
            return gone if names else ["no test is named"]
        case ["benchmark", "date"]:
            return _benchmark(entry["benchmark"], str(entry["date"]))
        case ["missing"] if str(entry["missing"]).strip():
            return []
    return [f"has {', '.join(entry) or 'nothing'}: test, benchmark and date, or missing (why)"]


def _benchmark(path: str, date: str) -> list[str]:
    wrong = []
    if not path.startswith(BENCHMARKS) or not (ROOT / path).is_file():
        wrong.append(f"there is no benchmark {path}")
    try:
        datetime.date.fromisoformat(date)
    except ValueError:
        wrong.append(f"{date} is no date")
    return wrong


@functools.cache
def _tests(path: str) -> frozenset[str]:
    file = ROOT / path
    if not (path.startswith("tests/") and file.name.startswith("test_") and file.is_file()):
        return frozenset()
    return tests_in(file.read_text())


def tests_in(text: str) -> frozenset[str]:
    """The names of the tests in a file's text."""
    body = ast.parse(text).body
    names = set(_functions(body))
    for node in body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{function}" for function in _functions(node.body)}
    return frozenset(names)


def _functions(body: list[ast.stmt]) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [n.name for n in body if isinstance(n, kinds) and n.name.startswith("test_")]
