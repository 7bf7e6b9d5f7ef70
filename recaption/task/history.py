"""What a task's attempts so far have achieved, from their logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaption.pipeline.loop import DRAIN, NOW
from recaption.run.tasklog import read_log


@dataclass(frozen=True, order=True)
class Attempt:
    """One attempt, unless it was told to stop before an engine was ready."""

    started: float
    got_somewhere: bool  # it finished a shard or a sample, or gave a shard up
    killed: bool  # it ended without logging its end


def read_attempts(logs: Iterable[Path], besides: str = "") -> list[Attempt]:
    """Attempts in the order of their starts, except for the one with the id `besides`.

    Attempts that were told to stop before one of their engines was ready are left out.
    """
    found = []
    for path in logs:
        events = read_log(path)
        if events and not path.stem.endswith(f"@{besides}") and not _was_called_off(events):
            got_somewhere = any(
                e["event"] in ("published", "failed")
                or e.get("settled", 0) > e.get("failed", 0)
                or e.get("why") == "done"
                for e in events
            )
            killed = all(e["event"] != "stop" for e in events)
            found.append(Attempt(events[0]["time"], got_somewhere, killed))
    return sorted(found)


def fruitless(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The latest attempts in a row that finished nothing."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.got_somewhere:
            break
        count += 1
    return list(attempts[len(attempts) - count :])


def _was_called_off(events: Sequence[dict[str, Any]]) -> bool:
    told = any(e["event"] == "stop" and e["why"] in (DRAIN, NOW) for e in events)
    return told and not any(e.get("engine_seconds") for e in events)
