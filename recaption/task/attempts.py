"""Whether a task gets anywhere: what its attempts so far came to, from their logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from recaption.run.tasklog import read_log


def read_attempts(logs: Iterable[Path], besides: str = "") -> list[bool]:
    """For each attempt in the order of their starts, whether it finished a shard or a sample.

    A shard that was given up on counts, too; `besides` is the id of an attempt to leave out.
    """
    found = []
    for path in logs:
        events = list(read_log(path))
        if events and not path.stem.endswith(f"@{besides}"):
            got_somewhere = any(
                e["event"] in ("published", "failed") or e.get("settled") or e.get("why") == "done"
                for e in events
            )
            found.append((events[0]["time"], got_somewhere))
    return [got_somewhere for _, got_somewhere in sorted(found)]


def fruitless(attempts: Sequence[bool]) -> int:
    """How many of the latest attempts in a row came to nothing."""
    count = 0
    for got_somewhere in reversed(attempts):
        if got_somewhere:
            break
        count += 1
    return count
