"""Leases: hints about who works on which shard, which save double work.

A lease is dead when it has not changed for `task.lease_seconds` by the reader's own clock, or at
once when its process was on this machine and is gone. Leases decide nothing about what is published;
that is up to the exclusive links.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from recaption.run import publish, shared
from recaption.run.liveness import Process, is_gone, this_process
from recaption.run.paths import RunPaths

# stands for an attempt whose id cannot be read: its owner `-` is no task's, its restart count is 0
DAMAGED = "--0-damaged"


@dataclass(frozen=True)
class Lease:
    """The holder of a shard; `begun` once it captions samples of the shard."""

    attempt: str  # see task.attempt_id
    beat: int = 0
    begun: bool = True
    process: Process | None = None

    @property
    def owner(self) -> str:
        """Submission and task."""
        return self.attempt.rsplit("-", 2)[0]

    @property
    def restart(self) -> int:
        """Slurm's restart count of the attempt."""
        return int(self.attempt.rsplit("-", 2)[1])


@dataclass
class _Seen:
    lease: Lease
    since: float
    alive: bool = False  # it has changed since it was seen first


class Leases:
    """The lease files of a run, as one attempt uses them."""

    def __init__(self, paths: RunPaths, attempt: str, seconds: float) -> None:
        self.paths, self.attempt, self.seconds = paths, attempt, seconds
        self.process = this_process()
        self.heartbeats = 0
        self.last_heartbeat = 0.0
        self.seen: dict[str, _Seen] = {}

    def read(self, name: str) -> Lease | None:
        """The lease of a shard, if there is one."""
        try:
            record = json.loads(shared.content(self.paths.lease(name)))
            process = record.pop("process", None)
            return Lease(**record, process=process and Process(**process))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # a node lost power while it was written
            return Lease(DAMAGED)

    def create(self, name: str, *, begun: bool) -> bool:
        """Lease a shard that has no lease; False if somebody else was faster."""
        path = self.paths.lease(name)
        temporary = self.paths.temporary(path, self.attempt)
        return publish.create(path, self._content(begun), temporary)

    def write(self, name: str, *, begun: bool) -> None:
        """Lease a shard, whoever held it."""
        path = self.paths.lease(name)
        publish.replace(path, self._content(begun), self.paths.temporary(path, self.attempt))

    def drop(self, name: str) -> None:
        """Remove this attempt's lease of a shard."""
        lease = self.read(name)
        if lease is not None and lease.attempt == self.attempt:
            shared.remove(self.paths.lease(name))

    def heartbeat_is_due(self) -> bool:
        """True if the held leases should be renewed, four times within the life of a lease."""
        now = time.monotonic()
        due = now - self.last_heartbeat > self.seconds / 4
        if due:
            self.last_heartbeat = now
            self.heartbeats += 1
        return due

    def is_dead(self, name: str, lease: Lease) -> bool:
        """Whether its process is gone, or it has not changed for too long.

        Asking starts the clock: the first call for a lease, and the first after each change of it,
        notes the time and answers False.
        """
        if self.is_orphaned(lease):
            return True
        now = time.monotonic()
        seen = self.seen.get(name)
        if seen is None or seen.lease != lease:
            self.seen[name] = _Seen(lease, now, alive=seen is not None)
            return False
        return now - seen.since > self.seconds

    def is_orphaned(self, lease: Lease) -> bool:
        """Whether its process was on this machine and is gone."""
        return lease.process is not None and is_gone(lease.process)

    def is_alive(self, name: str) -> bool:
        """Whether a lease has changed since is_dead first saw it."""
        return self.seen[name].alive

    def _content(self, begun: bool) -> bytes:
        return publish.to_json(asdict(Lease(self.attempt, self.heartbeats, begun, self.process)))
