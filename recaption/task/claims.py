"""Which shard a task takes next: its own slice first, then what nobody else holds.

A task opens shards before it needs them; an idle task may take over those on which no work has
begun. An attempt that finds a later attempt of its own task at work (Slurm believed that its node
was lost) gives up.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from enum import Enum, auto
from typing import Any

from recaption.pipeline.publisher import Finished
from recaption.run import publish, shared
from recaption.run.addresses import without_secrets
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run, Submission
from recaption.run.scan import scan
from recaption.run.tasklog import TaskLog
from recaption.task.leases import Lease, Leases

SCAN_SECONDS = 1.0
SCAN_COST = 20  # looking for shards takes at most 1/20 of the time
STEAL_AHEAD = 2  # shards beyond a task's own slice that it holds at once


class State(Enum):
    """What a task knows of a shard. One that it knows nothing of counts as DEFERRED."""

    QUEUED = auto()  # to be taken
    DEFERRED = auto()  # in other hands when it was looked at
    HELD = auto()  # opened here, before it is needed
    BEGUN = auto()  # opened here, and its samples are being captioned
    PUBLISHED = auto()  # finished here
    ELSEWHERE = auto()  # published by another task
    FAILED = auto()  # its tries are used up


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
        self.task, self.attempt, self.log = task, attempt, log
        settings = submission.config["task"]
        self.steal: bool = settings["steal"]
        self.tries_allowed: int = submission.config["data"]["tries"]
        self.me = Lease(attempt)
        self.leases = Leases(paths, attempt, settings["lease_seconds"])
        marked = paths.marked()
        self.slice = submission.slices[task]
        self.state = {p: State.QUEUED for p in self.slice if self._name(p) not in marked}
        self.tries: dict[int, int] = {}  # as recorded in the run, read once per shard
        self.next_scan = 0.0
        self.nothing_left = False  # as the last scan found
        self.superseded = False  # a later attempt of this task is at work

    @property
    def failures(self) -> int:
        """How many shards this task found with no tries left."""
        return len(self._in(State.FAILED))

    @property
    def taken_over(self) -> int:
        """How many shards of other tasks' slices were finished here."""
        return len(set(self._in(State.PUBLISHED)).difference(self.slice))

    def next(self) -> tuple[int, InputShard] | None:
        """A shard to work on and its position in the run; None while there is none."""
        position = self._own()
        if position is None:
            position = self._others()
        return None if position is None else (position, self.run.shards[position])

    def begin(self, position: int) -> bool:
        """Work on an opened shard starts now; False if another task has taken it over."""
        if self.state[position] is State.BEGUN:
            return True
        lease = self.leases.read(self._name(position))
        taken = lease is not None and not self._is_ours(lease)
        if taken or shared.exists(self.paths.marker(self._name(position))):
            self.state[position] = State.DEFERRED
            return False
        self.state[position] = State.BEGUN
        self.leases.write(self._name(position), begun=True)
        return True

    def anything_left(self) -> bool:
        """Whether a shard of the submission (without stealing: of the slice) is unpublished."""
        marked = self.paths.marked()
        candidates = self.submission.selected if self.steal else self._in(State.QUEUED)
        return any(self._name(position) not in marked for position in candidates)

    def exhausted(self) -> bool:
        """Whether next() has nothing more, for good."""
        return self.nothing_left and not self._in(State.QUEUED)

    def published(self, position: int, finished: Finished) -> None:
        self._let_go(position, State.PUBLISHED)
        name = self._name(position)
        told = {"reasons": finished.reasons, "again": finished.again}
        details = {key: value for key, value in told.items() if value}
        self.log.write("published", shard=name, counts=finished.counts, won=finished.won, **details)

    def failed(self, position: int, reason: str) -> None:
        """Record a try at a shard; it is tried again until data.tries are used up."""
        name = self._name(position)
        record = self._failure(position)
        record["tries"] += 1
        record["reason"] = reason = without_secrets(reason)
        record["attempts"] = [*record["attempts"], self.attempt][-10:]
        path = self.paths.failure(name)
        publish.replace(path, publish.to_json(record), self.paths.temporary(path, self.attempt))
        self.log.write("failed", shard=name, reason=reason, tries=record["tries"])
        self.tries[position] = record["tries"]
        used_up = record["tries"] >= self.tries_allowed
        self._let_go(position, State.FAILED if used_up else State.QUEUED)

    def states(self, besides: Collection[str]) -> Counter[str]:
        """Samples by state in the run's published shards, except for those named in `besides`."""
        published = scan(self.paths, self.run).done.items()
        return sum((Counter(c) for name, c in published if name not in besides), Counter[str]())

    def heartbeat(self) -> None:
        """Renew this task's leases now and then, except for those that others have taken over."""
        if self.leases.heartbeat_is_due():
            for position in self._held():
                lease = self.leases.read(self._name(position))
                if lease is None or self._is_ours(lease):
                    begun = self.state[position] is State.BEGUN
                    self.leases.write(self._name(position), begun=begun)

    def release(self) -> None:
        """Leave the unfinished shards to others, at the end of an attempt."""
        for position in self._held():
            self._let_go(position, State.DEFERRED)

    def _own(self) -> int | None:
        """Take the next shard of this task's slice that nobody else has."""
        for position in self._in(State.QUEUED):
            if self._is_settled(position):
                continue
            lease = self.leases.read(self._name(position))
            free = lease is None or self._is_ours(lease) or self.leases.is_orphaned(lease)
            if free and self._take(position, lease):
                return position
            self.state[position] = State.DEFERRED
        return None

    def _others(self) -> int | None:
        """Take a shard of the submission that nobody works on; looks for one now and then."""
        now = time.monotonic()
        if self.nothing_left or now < self.next_scan:
            return None
        held = len(self._held())
        if held > STEAL_AHEAD or (held and not self._in(State.PUBLISHED)):
            return None
        found = self._scan()
        cost = time.monotonic() - now
        self.next_scan = now + max(SCAN_SECONDS, SCAN_COST * cost)
        return found

    def _scan(self) -> int | None:
        """Take a shard without a live lease; notes if none will ever be left to take."""
        marked = self.paths.marked()
        undecided = False
        ahead: list[tuple[int, Lease]] = []
        for position in self._steal_order(marked) if self.steal else self._in(State.DEFERRED):
            name = self._name(position)
            if self.state.get(position, State.DEFERRED) is not State.DEFERRED:
                continue
            if name in marked or self._tries(position) >= self.tries_allowed:
                continue
            lease = self.leases.read(name)
            if lease is None or self._is_ours(lease) or self.leases.is_dead(name, lease):
                if self._take(position, lease):
                    return position
                undecided = True
                continue
            undecided |= not self.leases.is_alive(name)
            if not lease.begun:
                ahead.append((position, lease))
        if self.steal and ahead and not self._held():
            position, lease = ahead[0]
            self._take(position, lease)
            return position
        self.nothing_left = not undecided and not self._held()
        return None

    def _steal_order(self, marked: set[str]) -> Iterator[int]:
        """The order in which to steal: from the end of the slices with most left to do.

        The owner of a slice works from its beginning, so it comes to these shards last.
        """
        shards = self.run.shards

        def left(piece: Sequence[int]) -> int:
            return sum(shards[p].size or 1 for p in piece if shards[p].name not in marked)

        for piece in sorted(self.submission.slices, key=left, reverse=True):
            yield from reversed(piece)

    def _take(self, position: int, lease: Lease | None) -> bool:
        """Lease a shard, replacing `lease`; False if there was none and another task was faster."""
        name, begun = self._name(position), not self._held()
        if lease is not None:
            self.leases.write(name, begun=begun)
        elif not self.leases.create(name, begun=begun):
            return False
        self.state[position] = State.BEGUN if begun else State.HELD
        return True

    def _is_ours(self, lease: Lease) -> bool:
        """Whether a lease is this task's, of this attempt or an earlier one; notes a later one."""
        if lease.owner != self.me.owner:
            return False
        if lease.restart > self.me.restart:
            self.superseded = True
        return not self.superseded

    def _is_settled(self, position: int) -> bool:
        """Whether nothing is left to do here for a shard: published, or its tries are used up."""
        if shared.exists(self.paths.marker(self._name(position))):
            self.state[position] = State.ELSEWHERE
        elif self._tries(position) >= self.tries_allowed:
            self.state[position] = State.FAILED
        return self.state[position] is not State.QUEUED

    def _in(self, *states: State) -> list[int]:
        """The shards in one of some states; those that are queued, in the order to take them."""
        return [position for position, state in self.state.items() if state in states]

    def _held(self) -> list[int]:
        return self._in(State.HELD, State.BEGUN)

    def _name(self, position: int) -> str:
        return self.run.shards[position].name

    def _failure(self, position: int) -> dict[str, Any]:
        fresh = {"submission": self.submission.number, "tries": 0, "attempts": []}
        try:
            content = shared.content(self.paths.failure(self._name(position)))
            record: dict[str, Any] = json.loads(content)
        except (FileNotFoundError, ValueError):  # none yet, or a machine crashed while writing it
            return fresh
        return record if record["submission"] == self.submission.number else fresh

    def _tries(self, position: int) -> int:
        if position not in self.tries:
            self.tries[position] = self._failure(position)["tries"]
        return self.tries[position]

    def _let_go(self, position: int, state: State) -> None:
        """Give up the lease of a shard that is held; it comes last of those in its new state."""
        self.next_scan = 0.0
        self.state.pop(position)
        self.state[position] = state
        self.leases.drop(self._name(position))
