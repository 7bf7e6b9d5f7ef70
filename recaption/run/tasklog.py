"""A task's own log of what it did, as JSON lines: one file per attempt, only appended to.

Events: `start`, `published` (a shard with its counts, and the most frequent reasons of samples
without a caption), `failed` (a shard with the reason), `given_up` (a shard, by an operator), `beat`
(what the task has done so far; ever rarer, at least once a minute), `stopping` (a signal asked for
it), `stop`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recaption.run import shared
from recaption.run.publish import disk_errors

LONGEST_INTERVAL = 60.0
SHORTEST_INTERVAL = 1.0


class TaskLog:
    """Appends events; a line is written at once or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            self.fd = shared.appended(path)
        self.started = self.last_heartbeat = time.monotonic()
        self.had_first = False
        self.mend = ""  # a newline, after a line that a full disk cut short

    def write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        content = f"{self.mend}{line}\n".encode()
        with disk_errors(self.path):
            whole = os.write(self.fd, content) == len(content)
        self.mend = "" if whole else "\n"

    def heartbeat_is_due(self, *, first: bool = False) -> bool:
        """True at intervals that grow with the task's age, from a second to a minute.

        Also true once, immediately, when `first` becomes true.
        """
        now = time.monotonic()
        interval = min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, (now - self.started) / 20))
        due = now - self.last_heartbeat >= interval or (first and not self.had_first)
        self.had_first |= first
        if due:
            self.last_heartbeat = now
        return due

    def close(self) -> None:
        os.close(self.fd)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Events of one log; a line that is still being written, or was cut by a full disk, is left out."""
    lines = shared.content(path).split(b"\n")[:-1]
    try:
        events: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
        return events
    except ValueError:
        return list(_readable(lines))


def _readable(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue
