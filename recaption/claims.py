"""Which shard a task takes next: its own slice first, then what nobody else holds.

Leases are hints that save work. A lease is dead when its content has not changed for
`slurm.lease_seconds` by the reader's own clock; what is published is decided by links alone.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recaption import publish
from recaption.pipeline.librarian import Finished
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run, Submission
from recaption.run.tasklog import TaskLog

SCAN_SECONDS = 1.0
STEAL_AHEAD = 2  # shards at once beyond a task's own slice


@dataclass
class _Seen:
    content: bytes
    since: float
    alive: bool = False


class Claims:
    """The source of a task's shards."""

    def __init__(
        self,
        paths: RunPaths,
        run: Run,
        submission: Submission,
        task: int,
        attempt: str,
        log: TaskLog,
    ) -> None:
        self.paths, self.run, self.submission = paths, run, submission
        self.attempt, self.log = attempt, log
        settings = submission.config["slurm"]
        self.steal: bool = settings["steal"]
        self.lease_seconds: float = settings["lease_seconds"]
        self.tries_allowed: int = submission.config["data"]["tries"]
        marked = paths.marked()
        self.own = deque(p for p in submission.slices[task] if self._name(p) not in marked)
        self.tries: dict[int, int] = {}
        self.held: set[int] = set()
        self.settled: set[int] = set()
        self.seen: dict[int, _Seen] = {}
        self.beats = 0
        self.last_beat = self.last_scan = 0.0
        self.deferred: list[int] = []
        self.nothing_left = False
        self.finished_one = False
        self.failures = 0

    def next(self) -> tuple[int, InputShard] | None:
        position = self._next_position()
        if position is None:
            return None
        self.held.add(position)
        self._write_lease(position)
        return position, self.run.shards[position]

    def anything_left(self) -> bool:
        """Whether a shard of the submission (without stealing: of the slice) is unpublished."""
        marked = self.paths.marked()
        candidates = self.submission.selected if self.steal else self.own
        return any(self._name(position) not in marked for position in candidates)

    def exhausted(self) -> bool:
        return not self.own and self.nothing_left

    def published(self, position: int, finished: Finished) -> None:
        self._let_go(position)
        self.finished_one = True
        name = self._name(position)
        self.log.write("published", shard=name, counts=finished.counts, won=finished.won)

    def failed(self, position: int, reason: str) -> None:
        """Record a try at a shard; it is tried again until data.tries are used up."""
        self._let_go(position)
        name = self._name(position)
        record = self._failure(position)
        record["tries"] += 1
        record["reason"] = reason
        record["attempts"] = [*record["attempts"], self.attempt][-10:]
        path = self.paths.failure(name)
        publish.replace(path, publish.to_json(record), self.paths.temporary(path, self.attempt))
        self.log.write("failed", shard=name, reason=reason, tries=record["tries"])
        self.tries[position] = record["tries"]
        if record["tries"] < self.tries_allowed:
            self.own.append(position)
            self.settled.discard(position)
        else:
            self.failures += 1

    def beat(self) -> None:
        """Renew this task's leases."""
        now = time.monotonic()
        if now - self.last_beat > self.lease_seconds / 4:
            self.last_beat = now
            self.beats += 1
            for position in self.held:
                self._write_lease(position)

    def release(self) -> None:
        """At the end of an attempt: what is unfinished is free for others."""
        for position in list(self.held):
            self._let_go(position)

    def _next_position(self) -> int | None:
        while self.own:
            position = self.own.popleft()
            if self._is_settled(position):
                continue
            content = self._read_lease(position)
            if content is None or self._is_ours(content):
                return position
            self.deferred.append(position)  # another submission's task has it
        now = time.monotonic()
        ahead = len(self.held) <= STEAL_AHEAD and (self.finished_one or not self.held)
        if self.nothing_left or not ahead or now - self.last_scan < SCAN_SECONDS:
            return None
        self.last_scan = now
        return self._without_live_lease(now)

    def _is_settled(self, position: int) -> bool:
        """Whether nothing is left to do here for a shard: published, or its tries are used up."""
        if position in self.settled:
            return True
        if self.paths.marker(self._name(position)).exists():
            self.settled.add(position)
        elif self._tries(position) >= self.tries_allowed:
            self.settled.add(position)
            self.failures += 1
        return position in self.settled

    def _is_ours(self, content: bytes) -> bool:
        """Whether a lease is this task's, of this attempt or an earlier one."""
        holder: str = json.loads(content)["attempt"]
        return holder.rsplit("-", 2)[0] == self.attempt.rsplit("-", 2)[0]

    def _without_live_lease(self, now: float) -> int | None:
        """A shard that nobody works on; notes when there can be none any more."""
        marked = self.paths.marked()
        undecided = False
        for position in self._steal_order() if self.steal else self.deferred:
            if position in self.held or self._name(position) in marked:
                continue
            if position in self.settled or self._tries(position) >= self.tries_allowed:
                continue
            content = self._read_lease(position)
            if content is None:
                return position
            seen = self.seen.get(position)
            if seen is None or seen.content != content:
                self.seen[position] = _Seen(content, now, alive=seen is not None)
            elif now - seen.since > self.lease_seconds:
                return position
            undecided |= not self.seen[position].alive
        self.nothing_left = not undecided and not self.held
        return None

    def _steal_order(self) -> Sequence[int]:
        """From the ends of the longest remaining slices, where their owners come last."""
        slices = sorted(self.submission.slices, key=len, reverse=True)
        return [position for piece in slices for position in reversed(piece)]

    def _name(self, position: int) -> str:
        return self.run.shards[position].name

    def _failure(self, position: int) -> dict[str, Any]:
        fresh = {"submission": self.submission.number, "tries": 0, "attempts": []}
        try:
            record: dict[str, Any] = json.loads(
                self.paths.failure(self._name(position)).read_bytes()
            )
        except FileNotFoundError:
            return fresh
        return record if record["submission"] == self.submission.number else fresh

    def _tries(self, position: int) -> int:
        if position not in self.tries:
            self.tries[position] = self._failure(position)["tries"]
        return self.tries[position]

    def _write_lease(self, position: int) -> None:
        path = self.paths.lease(self._name(position))
        content = publish.to_json({"attempt": self.attempt, "beat": self.beats})
        publish.replace(path, content, self.paths.temporary(path, self.attempt))

    def _read_lease(self, position: int) -> bytes | None:
        try:
            return self.paths.lease(self._name(position)).read_bytes()
        except FileNotFoundError:
            return None

    def _let_go(self, position: int) -> None:
        self.last_scan = 0.0
        self.held.discard(position)
        self.settled.add(position)
        content = self._read_lease(position)
        if content is not None and json.loads(content)["attempt"] == self.attempt:
            self.paths.lease(self._name(position)).unlink(missing_ok=True)
