"""The open shards of a task: indexed before they are needed, finished when all samples have a state."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from operator import length_hint
from typing import IO, Any, Protocol

from recaption.config.schema import Config
from recaption.errors import DiskFull, ShardError, SpoolFull
from recaption.pipeline import publisher
from recaption.pipeline.spool_room import SpoolRoom, is_spooled
from recaption.pipeline.work import OpenShard
from recaption.prepare import children
from recaption.run import shared
from recaption.run.journal import Event, Journal
from recaption.run.record import InputShard
from recaption.shard.source import needs_spool, spool_file

OPEN_PER_ENGINE = 8  # shards, so that small ones keep all engines full


class Source(Protocol):
    """Where shards come from; it is told what becomes of them."""

    def next(self) -> tuple[int, InputShard] | None:
        """A shard to work on and its position in the run; None while there is none."""

    def begin(self, position: int) -> bool:
        """Work on an opened shard starts now; False if another task has taken it over."""

    def exhausted(self) -> bool:
        """Whether next() has nothing more, for good."""

    def published(self, position: int, finished: publisher.Finished) -> None: ...

    def failed(self, position: int, reason: str) -> None: ...

    def states(self, besides: Collection[str]) -> Counter[str]:
        """The run's samples by state, as far as known, except for the shards named in `besides`."""


@dataclass(frozen=True)
class _Opening:
    position: int
    shard: InputShard
    path: str
    spool: IO[bytes] | None
    room: int | None  # bytes that the spool file may have


class OpenShards:
    """Opens shards from a source and finishes them, through the publisher process."""

    def __init__(
        self,
        config: Config,
        context: publisher.Context,
        source: Source,
        facts: Callable[[], dict[str, Any]],
        engines: int,
    ) -> None:
        self.most = OPEN_PER_ENGINE * engines
        self.config, self.context, self.source, self.facts = config, context, source, facts
        self.pool = children.Pool(publisher.main, (context,), 1, float("inf"))
        self.numbers = itertools.count()
        self.open: list[OpenShard] = []
        self.room = SpoolRoom(config.data.spool_gb)
        self.postponed: tuple[int, InputShard] | None = None  # waits for room in the spool
        self.found: dict[str, Counter[str]] = {}  # states from earlier attempts, of shards opened

    @property
    def opening(self) -> bool:
        """Whether the publisher is opening a shard."""
        return any(isinstance(tag, _Opening) for tag in self.pool.at_work())

    def connections(self) -> dict[Connection, children.Worker]:
        return self.pool.connections()

    def done(self) -> bool:
        """Whether no shard is open and none is left to open."""
        waiting = self.open or self.opening or self.postponed
        return not waiting and self.source.exhausted()

    def finishing(self) -> bool:
        return any(s.finishing for s in self.open)

    def waiting(self) -> int:
        """How many samples of open shards have not been taken up yet."""
        return sum(length_hint(s.fresh) for s in self.open)

    def refill(self, low_water: int) -> None:
        """Open the next shard when fewer than `low_water` samples are waiting."""
        while (
            not self.opening
            and len(self.open) < self.most
            and self.waiting() < low_water
            and (following := self._following())
        ):
            position, shard = following
            try:
                self._begin(position, shard)
            except ShardError as e:
                self.source.failed(position, str(e))

    def _following(self) -> tuple[int, InputShard] | None:
        """The next shard to open; None while there is none, or the spool has no room for it."""
        following = self.postponed or self.source.next()
        if following is None:
            return None
        spooled = following is self.postponed or is_spooled(following[1])
        fits = not spooled or self.room.fits(following[1], self.open)
        self.postponed = None if fits else following
        return following if fits else None

    def next_fresh(self) -> tuple[OpenShard, int] | None:
        """The next sample nobody has taken up, oldest shard first."""
        for shard in list(self.open):
            if not shard.begun and not shard.finishing:
                shard.begun = self.source.begin(shard.position)
                if not shard.begun:
                    self._drop(shard)
                    continue
            index = next(shard.fresh, None)
            if index is not None:
                return shard, index
        return None

    def settle(self, shard: OpenShard, event: Event) -> None:
        """Journal a sample's final event; the last one of a shard has it finished."""
        shard.journal.add(event)
        shard.remaining -= 1
        self._finish_if_complete(shard)

    def receive(self, worker: children.Worker) -> None:
        """Handle the publisher's next message."""
        outcome = self.pool.receive(worker)
        if outcome is None:
            return
        entry, result = outcome
        if isinstance(result, children.Crashed) and self._has_marker(entry.shard):
            result = publisher.Finished({}, won=False)  # it may have died right after publishing
        if isinstance(result, DiskFull):
            raise result
        if isinstance(entry, _Opening):
            self._opened(entry, result)
        else:
            self._finished(entry, result)

    def states(self) -> Counter[str]:
        """The run's samples by state, without those that this attempt has settled."""
        return sum(self.found.values(), self.source.states(self.found))

    def idle(self) -> bool:
        """Whether no sample waits to be taken up, and no shard is being opened."""
        return not self.opening and not self.waiting()

    def exhausted(self) -> bool:
        """Whether it is idle with room for another shard: the source has none to give now."""
        return self.idle() and not self.postponed and len(self.open) < self.most

    def flush(self) -> None:
        for shard in self.open:
            shard.journal.flush()

    def close(self) -> None:
        """Flush every journal, then end the publisher."""
        with ExitStack() as endings:
            endings.callback(self.pool.close)
            for shard in self.open:
                endings.callback(shard.close)

    def _begin(self, position: int, shard: InputShard) -> None:
        spool, room, path = None, None, shard.source.removeprefix("file://")
        if needs_spool(shard.source):
            spool = spool_file(self.config.data.spool)
            path = f"/proc/{os.getpid()}/fd/{spool.fileno()}"
            room = self.room.left(self.open)
        job = publisher.Open(shard, path, room)
        self.pool.submit(job, _Opening(position, shard, path, spool, room))

    def _opened(self, entry: _Opening, result: Any) -> None:
        if entry.spool:
            self.room.note(os.fstat(entry.spool.fileno()).st_size)
        if not isinstance(result, publisher.Opened):
            if entry.spool:
                entry.spool.close()
            if isinstance(result, SpoolFull):
                if any(s.spool for s in self.open):
                    self.room.note((entry.room or 0) + 1)
                    self.postponed = entry.position, entry.shard
                    return
                result = self.room.refusal(result)
            self._ended(entry.position, result)
            return
        samples = result.index.samples
        fresh = [i for i in range(len(samples)) if i not in result.done]
        self.found[entry.shard.name] = Counter(result.done.values())
        number = next(self.numbers)
        attempt = self.context.attempt
        journal = Journal(
            self.context.paths.journal(entry.shard.name, f"{attempt}.{number}"),
            {
                "fingerprint": self.context.fingerprint,
                "digest": result.index.digest,
                "attempt": attempt,
            },
        )
        shard = OpenShard(
            number=number,
            shard=entry.shard,
            position=entry.position,
            path=entry.path,
            digest=result.index.digest,
            samples=samples,
            fresh=iter(fresh),
            journal=journal,
            remaining=len(fresh),
            strikes=result.strikes,
            asked=frozenset(result.asked),
            spool=entry.spool,
        )
        self.open.append(shard)
        self._finish_if_complete(shard)

    def _finish_if_complete(self, shard: OpenShard) -> None:
        if shard.remaining == 0 and not shard.finishing:
            shard.finishing = True
            shard.journal.flush()
            job = publisher.Finish(shard.shard, shard.path, shard.digest, self.facts())
            self.pool.submit(job, shard)

    def _finished(self, shard: OpenShard, result: Any) -> None:
        self.open.remove(shard)
        if shard.spool:
            shard.spool.truncate(0)  # workers may keep it open for long, so its space is freed now
        shard.close()
        if isinstance(result, publisher.Finished):
            shared.remove(shard.journal.path)
        self._ended(shard.position, result)

    def _drop(self, shard: OpenShard) -> None:
        """Put back a shard of which nobody has taken up a sample."""
        self.open.remove(shard)
        shard.close()
        shared.remove(shard.journal.path)

    def _has_marker(self, shard: InputShard) -> bool:
        return shared.exists(self.context.paths.marker(shard.name))

    def _ended(self, position: int, result: Any) -> None:
        if isinstance(result, publisher.Finished):
            self.source.published(position, result)
        else:
            reason = result.reason if isinstance(result, children.Crashed) else str(result)
            self.source.failed(position, reason)
