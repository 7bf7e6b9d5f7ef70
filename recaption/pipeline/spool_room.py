"""Limits the disk space that a task's spooled shards take together (data.spool_gb)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from recaption.errors import ShardError, SpoolFull
from recaption.pipeline.work import OpenShard
from recaption.run.record import InputShard
from recaption.shard.source import needs_spool

GIB = 1 << 30


class SpoolRoom:
    """Knows how much may still be spooled, and whether the next shard is likely to fit."""

    def __init__(self, gigabytes: float) -> None:
        self.gigabytes = gigabytes
        self.largest = 0  # bytes of the largest shard spooled so far

    def left(self, open_shards: Iterable[OpenShard]) -> int:
        """Bytes that the open shards leave free."""
        sizes = (os.fstat(s.spool.fileno()).st_size for s in open_shards if s.spool)
        return int(self.gigabytes * GIB) - sum(sizes)

    def fits(self, shard: InputShard, open_shards: Iterable[OpenShard]) -> bool:
        """Whether to spool a shard now; if no other is spooled, it is always tried."""
        spooled = [s for s in open_shards if s.spool]
        return not spooled or self.left(spooled) >= max(shard.size or 0, self.largest)

    def note(self, size: int) -> None:
        """Note that a shard has at least this size."""
        self.largest = max(self.largest, size)

    def refusal(self, error: SpoolFull) -> ShardError:
        """The error for a shard that does not fit even alone."""
        return ShardError(
            f"{error}: data.spool_gb={self.gigabytes:g} is all that a task's spooled shards have"
        )


def is_spooled(shard: InputShard) -> bool:
    """Whether opening this shard takes space in the spool."""
    try:
        return needs_spool(shard.source)
    except ShardError:
        return False  # opening it will raise the error
