"""The journal: what a task has found out survives it, and nothing wrong is ever read from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recaption.errors import DiskFull
from recaption.run.journal import History, Journal, read_history
from recaption.run.rows import CAPTIONED, REJECTED

OURS = {"fingerprint": "f", "digest": "d"}
Event = dict[str, Any]


def event(index: int, status: str = CAPTIONED, **more: Any) -> Event:
    return {"i": index, "key": f"k{index}", "status": status, **more}


def write(path: Path, frames: Sequence[Sequence[Event]], **header: str) -> Path:
    """A journal of one frame per flush."""
    journal = Journal(path, {**OURS, "attempt": path.stem, **header})
    for events in frames:
        for e in events:
            journal.add(e)
        journal.flush()
    journal.close()
    return path


def history(*paths: Path) -> History:
    return read_history(paths, "f", "d")


def states(found: History) -> dict[int, str]:
    return {index: e["status"] for index, e in found.final.items()}


FRAMES = [
    [event(i * 5 + j, captions={"short": {"caption": f"a caption {i} {j}"}}) for j in range(5)]
    for i in range(8)
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("journal") / "whole", FRAMES)


def prefixes() -> list[list[int]]:
    return [list(range(n * 5)) for n in range(len(FRAMES) + 1)]


def test_what_was_flushed_is_read(whole: Path) -> None:
    found = history(whole)
    assert found.damaged == []
    assert list(found.final) == list(range(40))
    assert found.final[7] == FRAMES[1][2] | {"attempt": "whole"}


def test_what_was_not_flushed_is_not_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a", {**OURS, "attempt": "a"})
    journal.add(event(0))
    journal.flush()
    journal.add(event(1))
    assert states(history(tmp_path / "a")) == {0: CAPTIONED}
    journal.close()
    assert len(history(tmp_path / "a").final) == 2


def test_a_torn_tail_is_ignored_at_every_length(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    cut = tmp_path / "cut"
    seen = set()
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        found = history(cut)
        assert found.damaged == [], length
        assert list(found.final) in prefixes()
        seen.add(len(found.final))
    assert seen == set(range(0, 40, 5))


@given(st.data())
def test_damage_is_detected_and_never_read(whole: Path, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    check_damaged(content, whole)


def test_every_flipped_byte_is_detected(whole: Path) -> None:
    content = whole.read_bytes()
    for place in range(len(content)):
        for mask in (0xFF, 0x04):
            flipped = bytearray(content)
            flipped[place] ^= mask
            check_damaged(flipped, whole)


def check_damaged(content: bytearray, whole: Path) -> None:
    """A prefix of the events; all of them, or a word about damage unless the last frame is hit."""
    damaged = whole.with_name("damaged")
    damaged.write_bytes(content)
    found = history(damaged)
    assert list(found.final) in prefixes()
    for index, e in found.final.items():
        assert e == FRAMES[index // 5][index % 5] | {"attempt": "whole"}
    assert found.damaged or len(found.final) >= 35


def test_zeros_after_a_power_failure_are_reported(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.write_bytes(whole.read_bytes() + bytes(500))
    found = history(path)
    assert len(found.final) == 40
    assert "zeros" in found.damaged[0]


def test_the_earliest_attempt_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "z-first", [[event(0, captions="one"), event(1)]])
    second = write(tmp_path / "a-second", [[event(0, captions="two"), event(2, REJECTED)]])
    for order in ((first, second), (second, first)):
        found = history(*order)
        assert states(found) == {0: CAPTIONED, 1: CAPTIONED, 2: REJECTED}
        assert found.final[0]["captions"] == "one"
        assert [found.final[i]["attempt"] for i in range(3)] == ["z-first", "z-first", "a-second"]


@pytest.mark.parametrize("other", [{"fingerprint": "g"}, {"digest": "e"}])
def test_journals_of_another_run_or_input_are_ignored(
    other: dict[str, str], tmp_path: Path
) -> None:
    foreign = write(tmp_path / "foreign", [[event(0), event(1, "strike", strikes=1)]], **other)
    found = history(foreign)
    assert (found.final, found.strikes, found.damaged) == ({}, {}, [])


def test_strikes_are_kept_until_the_end(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [[event(3, "strike", strikes=1), event(4, "strike", strikes=1)]])
    second = write(tmp_path / "b", [[event(3, "strike", strikes=2), event(4, strikes=1)]])
    found = history(first, second)
    assert found.strikes == {3: 2, 4: 1}
    assert states(found) == {4: CAPTIONED}


def test_a_sample_that_could_not_be_read_has_no_state(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [[event(0, "unread", reason="I/O error"), event(1)]])
    assert states(history(first)) == {1: CAPTIONED}
    assert history(first).unread == {0: "I/O error"}
    second = write(tmp_path / "b", [[event(0)]])
    assert states(history(first, second)) == {0: CAPTIONED, 1: CAPTIONED}


def test_journals_that_vanish_are_of_published_shards(tmp_path: Path) -> None:
    there = write(tmp_path / "a", [[event(0)]])
    assert states(history(tmp_path / "gone", there)) == {0: CAPTIONED}


def test_a_journal_belongs_to_one_attempt(tmp_path: Path) -> None:
    write(tmp_path / "a", [])
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "a", OURS)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"key": st.text(st.characters()), "reason": st.text(st.characters(), max_size=40)}
        ),
        max_size=6,
    )
)
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[Event]) -> None:
    events = [{"i": i, "status": REJECTED, **text} for i, text in enumerate(texts)]
    path = write(tmp_path_factory.mktemp("text") / "a", [[e] for e in events])
    found = history(path)
    assert found.damaged == []
    assert list(found.final.values()) == [e | {"attempt": "a"} for e in events]


def test_lone_surrogates_and_line_separators_survive(tmp_path: Path) -> None:
    text = "\udce9 \u2028 \x85 \x1c \r\n \0 🙂"
    path = write(tmp_path / "a", [[event(0, reason=text)]])
    assert history(path).final[0]["reason"] == text


def test_a_full_disk_ends_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "a", {**OURS, "attempt": "a"})
    real = os.write

    def full(fd: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    journal.add(event(0))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskFull, match="No space left"):
        journal.flush()
    monkeypatch.setattr(os, "write", real)
    journal.close()
    assert states(history(tmp_path / "a")) == {0: CAPTIONED}, "nothing was forgotten meanwhile"
