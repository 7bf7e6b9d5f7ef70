"""Each key, preset, command and option has an entry that names the test showing its effect."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import shown

from recaption.__main__ import COMMANDS, parser_of
from recaption.config.onnx import Scorer
from recaption.config.overrides import GROUPS
from recaption.config.schema_walk import documented
from recaption.launch.help import presets

HELP = "-h/--help"  # of every command: tests/unit/test_arguments.py
MOST_MISSING = 0  # entries without a test; only ever lowered
SCORER = "scorers.NAME."


def arguments() -> Iterator[str]:
    """Every command, and what each takes, by all of its names: `retry -o/--output`."""
    yield from ("recaption --help", "recaption --version")
    for command in COMMANDS:
        yield command
        yield from (f"{command} {name}" for name in parser_of(command).takes if name != HELP)


EVERY = {
    "keys": [k.name for k in (*documented(), *documented(Scorer, SCORER))] + [f"{SCORER}kind"],
    "presets": [f"{group}={name}" for group in GROUPS for name in presets(group)],
    "commands": list(arguments()),
}


def table(name: str) -> dict[str, dict[str, Any]]:
    """The entries of one of the .toml files, by their full name."""
    text = (shown.ROOT / f"tests/shown/{name}.toml").read_text()
    return tomllib.loads(text)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_without_an_entry_and_no_entry_without_a_thing(name: str) -> None:
    assert sorted(table(name)) == sorted(EVERY[name])


@pytest.mark.parametrize("name", EVERY)
def test_every_entry_names_what_is_there(name: str) -> None:
    wrong = {entry: p for entry, given in table(name).items() if (p := shown.problems(given))}
    assert wrong == {}


def test_what_no_test_shows_becomes_less() -> None:
    missing = [entry for name in EVERY for entry, g in table(name).items() if "missing" in g]
    assert len(missing) <= MOST_MISSING, missing


def test_a_named_test_is_there_or_the_entry_is_wrong() -> None:
    here = "tests/unit/test_shown.py::test_a_named_test_is_there_or_the_entry_is_wrong"
    assert shown.exists(here)
    assert shown.exists(here + "[some-id]")
    assert not shown.exists(here + "_not")
    assert not shown.exists("tests/unit/test_nowhere.py::test_a")
    assert not shown.exists("tests/helpers.py::sh")
    assert shown.problems({"test": here}) == shown.problems({"test": [here, here]}) == []
    assert shown.problems({"test": []})
    assert shown.problems({"test": [here, here + "_not"]}) == [f"there is no test {here}_not"]


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({}, "nothing"),
        ({"missing": " "}, "missing"),
        ({"test": "x", "missing": "y"}, "test, missing"),
        ({"benchmark": "benchmarks/none.py", "date": "2026-11-01"}, "no benchmark"),
        ({"benchmark": "recaption/errors.py", "date": "2026-11-01"}, "no benchmark"),
        ({"benchmark": "benchmarks/sweep.py", "date": "soon"}, "soon is no date"),
    ],
)
def test_an_entry_says_one_thing_and_says_it_whole(entry: dict[str, Any], word: str) -> None:
    assert word in "\n".join(shown.problems(entry))


def test_a_benchmark_with_its_date_and_a_reason_are_entries() -> None:
    assert not shown.problems({"benchmark": "benchmarks/sweep.py", "date": "2026-11-01"})
    assert not shown.problems({"missing": "needs two machines"})
