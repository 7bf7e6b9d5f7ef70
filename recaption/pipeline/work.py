"""Shards and samples on their way through a task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from recaption.engine.base import Caption
from recaption.run.journal import Event, Journal
from recaption.run.record import InputShard
from recaption.shard.samples import Sample


@dataclass(eq=False)
class OpenShard:
    """A shard that is being worked on; `remaining` samples have no final state yet."""

    number: int  # distinguishes the shards opened by a task
    shard: InputShard
    position: int  # in the run's list
    path: str
    digest: str
    samples: list[Sample]
    fresh: Iterator[int]
    journal: Journal
    remaining: int
    strikes: dict[int, int] = field(default_factory=dict)
    # samples that a retry asks again because they were rejected or failed
    asked: frozenset[int] = frozenset()
    spool: IO[bytes] | None = None
    begun: bool = False  # a sample of it was taken up
    finishing: bool = False

    def close(self) -> None:
        self.journal.close()
        if self.spool:
            self.spool.close()


@dataclass(eq=False)
class Work:
    """A sample that is being captioned; it is prepared again for each stage and after a failure."""

    number: int
    shard: OpenShard
    index: int
    tries: int = 0
    strikes: int = 0
    alone: bool = False  # prepared in a chunk of its own, after a worker died on it
    stage: int = 0
    captions: dict[str, Caption] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)  # of the captions
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)  # attempt, temperature, flags
    attempts: list[dict[str, Any]] = field(default_factory=list)  # captions that were not kept
    retries: int = 0  # of flagged captions in this stage
    asking: tuple[str, ...] = ()  # the prompts that are asked again
    cut: tuple[str, ...] = ()  # prompts whose fields the last preparation cut
    temperature: float | None = None  # instead of sampling.temperature
    errors: int = 0  # requests that the engine answered with an error
    facts: dict[str, Any] = field(default_factory=dict)
    offset: int | None = None  # its region in shared memory, while it has one
    length: int = 0
    status: str = ""
    reason: str = ""

    @property
    def sample(self) -> Sample:
        return self.shard.samples[self.index]

    def event(self, status: str, reason: str = "") -> Event:
        """This sample's journal event."""
        event: Event = {"i": self.index, "key": self.sample.key, "status": status}
        if reason:
            event["reason"] = reason
        if self.attempts:
            self.facts["attempts"] = json.dumps(self.attempts, ensure_ascii=False)
        if self.facts:
            event["facts"] = self.facts
        if self.strikes:
            event["strikes"] = self.strikes
        event["tries"] = max(1, self.tries)
        return event
