"""recaption.join: full shards from a captions-only run and the shards it was made from."""

from recaption.join.command import main

__all__ = ["main"]
