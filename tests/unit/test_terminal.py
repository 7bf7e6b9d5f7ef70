"""Bars, lines and colors, each only where they are wanted."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from recaption.cli import progress as module
from recaption.cli.progress import LINE_SECONDS, Progress, with_progress
from recaption.cli.terminal import has_colors, is_live
from recaption.task import progress_line
from recaption.task.progress_line import SECONDS, Summary


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "live", "colors"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
    ],
)
def test_what_a_terminal_gets(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], live: bool, colors: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_live(Screen()) == live
    assert has_colors(Screen()) == colors
    assert not is_live(io.StringIO())
    assert not has_colors(io.StringIO())
    monkeypatch.setattr(sys, "stderr", Screen())
    with Progress(200, "shard") as progress:
        progress.update()
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("\r" in shown) == live
    assert ("0 of 200 shards\n" in shown) != live


def test_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(1000, "shard") as progress:
        for _ in range(600):
            clock[0] += LINE_SECONDS / 50
            progress.update()
    lines = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "0 of 1000 shards"
    assert 11 <= len(lines) - 1 <= 13
    assert lines[1].startswith("5")
    assert lines[1].endswith("s left")


def test_a_text_is_said_at_once_and_no_line_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(2, "shard", announce=False) as progress:
        for done, text, at_once in (
            (0, "a", True),
            (0, "a", True),
            (1, "b", False),
            (2, "c", True),
        ):
            progress.show(done, text, at_once=at_once)
    assert capsys.readouterr().err.splitlines() == ["0 of 2 shards, a", "2 of 2 shards, c"]


def test_a_terminal_s_bar_is_drawn_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setenv("TERM", "xterm")
    assert list(with_progress(range(20_000), 20_000)) == list(range(20_000))
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert 1 <= shown.count("\r") < 1000


def test_few_things_need_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(20, "shard") as progress:
        progress.update()
    assert capsys.readouterr().err == ""


def test_a_task_says_one_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: clock[0])
    shards = [SimpleNamespace(name=f"{n}.tar") for n in range(4)]
    paths = SimpleNamespace(marked=lambda: {"0.tar", "3.tar"})
    claims: Any = SimpleNamespace(
        run=SimpleNamespace(shards=shards),
        slice=[0, 1, 2],
        paths=paths,
        taken_over=1,
    )
    engines = SimpleNamespace(in_flight=lambda: 7, restarts=2, given_up=[])
    pipeline: Any = SimpleNamespace(settled=0, engines=engines)
    said = Summary(claims)
    for _ in range(4 * 600):  # ten minutes
        clock[0] += 0.25
        pipeline.settled += 5
        said.tick(pipeline)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 600 / SECONDS
    for part in ("1 of 3 shards, 1 of other tasks", "20.0 images/s", "7 in flight", "2 engine"):
        assert part in lines[-1]
    assert "12000 samples" in lines[-1]
    assert lines[-1].endswith("GiB of memory")
