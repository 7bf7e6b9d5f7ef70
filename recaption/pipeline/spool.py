"""The room that a task's spooled shards have together: data.spool_gb."""

from __future__ import annotations

import os
from collections.abc import Iterable

from recaption.errors import ShardError, SpoolFull
from recaption.pipeline.work import OpenShard
from recaption.run.record import InputShard
from recaption.shard.source import needs_spool

GIB = 1 << 30


class SpoolRoom:
    """How much may still be spooled, and whether the next shard is likely to fit."""

    def __init__(self, gigabytes: float) -> None:
        self.gigabytes = gigabytes
        self.largest = 0  # bytes of a spooled shard so far

    def left(self, open_shards: Iterable[OpenShard]) -> int:
        """Bytes that are left beside the shards that are open."""
        sizes = (os.fstat(s.spool.fileno()).st_size for s in open_shards if s.spool)
        return int(self.gigabytes * GIB) - sum(sizes)

    def fits(self, shard: InputShard, open_shards: Iterable[OpenShard]) -> bool:
        """Whether to spool a shard now; one that would be alone is always tried."""
        spooled = [s for s in open_shards if s.spool]
        return not spooled or self.left(spooled) >= max(shard.size or 0, self.largest)

    def note(self, size: int) -> None:
        """A shard had this size, or more."""
        self.largest = max(self.largest, size)

    def refusal(self, error: SpoolFull) -> ShardError:
        """What to say of a shard that does not fit even alone."""
        return ShardError(
            f"{error}: data.spool_gb={self.gigabytes:g} is all that a task's spooled shards have"
        )


def is_spooled(shard: InputShard) -> bool:
    """Whether opening this shard takes room."""
    try:
        return needs_spool(shard.source)
    except ShardError:
        return False  # which opening it will say
