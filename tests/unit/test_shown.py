"""Each key and preset has an entry that names the test showing its effect."""

import pytest
import shown


def test_a_named_test_is_there_or_the_entry_is_wrong():
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
def test_an_entry_says_one_thing_and_says_it_whole(entry, word):
    assert word in "\n".join(shown.problems(entry))


def test_a_benchmark_with_its_date_and_a_reason_are_entries():
    assert not shown.problems({"benchmark": "benchmarks/sweep.py", "date": "2026-11-01"})
    assert not shown.problems({"missing": "needs two machines"})
