"""Chooses the samples of the gallery: the worst of every kind, extremes, and random ones.

A sample's draw is a hash of its shard's URL and its position: two reports, and two runs over the
same shards, draw the same samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from recaption.run.columns import split_flags
from recaption.run.rows import CAPTIONED, FAILED, FILTERED, REJECTED

Array = np.ndarray[Any, Any]
Place = tuple[str, int]  # a shard's URL, a row
SEVERITY = {FAILED: 40.0, REJECTED: 30.0, FILTERED: 20.0}
FLAGGED = 10.0  # severity of a flagged caption, plus one for each flag
EXTREMES = 6  # samples per measure with the lowest, and with the highest, values
WORST_SHARE, EXTREME_SHARE = 0.5, 0.25  # shares of the gallery, at least, if there are enough


def severity(status: str, flags: str) -> float:
    """How bad a row is; 0 for a caption without flags."""
    if status != CAPTIONED:
        return SEVERITY.get(status, SEVERITY[FAILED])
    found = set(split_flags(flags))
    return FLAGGED + len(found) if found else 0.0


def draws(shard_hash: int, rows: int) -> Array:
    """A 64-bit draw for each row of a shard (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(shard_hash)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


@dataclass
class Smallest:
    """The `limit` places with the smallest values seen."""

    limit: int
    found: list[tuple[float, str, int]] = field(default_factory=list)

    def add(self, values: Array, urls: Sequence[str], shards: Array, rows: Array) -> None:
        """`shards` are positions in `urls`, `rows` positions in a shard."""
        if len(values) > self.limit:
            chosen = np.argpartition(values, self.limit - 1)[: self.limit]
        else:
            chosen = np.arange(len(values))
        self.found += [(float(values[i]), urls[shards[i]], int(rows[i])) for i in chosen]
        self.found.sort()
        del self.found[self.limit :]

    def places(self) -> list[Place]:
        return [(url, row) for _, url, row in self.found]


@dataclass
class Candidates:
    """The places of one run from which the gallery is chosen."""

    limit: int
    kinds: dict[str, Smallest] = field(default_factory=dict)  # state, or flags of a caption
    severities: dict[str, float] = field(default_factory=dict)
    extremes: dict[str, Smallest] = field(default_factory=dict)
    good: Smallest = field(default_factory=lambda: Smallest(0))

    def __post_init__(self) -> None:
        self.good = Smallest(self.limit)

    def add_kind(
        self, kind: str, bad: float, values: Array, urls: Sequence[str], shards: Array, rows: Array
    ) -> None:
        found = self.kinds.setdefault(kind, Smallest(self.limit))
        self.severities[kind] = bad
        found.add(values, urls, shards, rows)

    def add_extreme(
        self, name: str, values: Array, urls: Sequence[str], shards: Array, rows: Array
    ) -> None:
        self.extremes.setdefault(name, Smallest(EXTREMES)).add(values, urls, shards, rows)


def choose(candidates: Sequence[Candidates], limit: int) -> list[Place]:
    """At most `limit` places: bad ones of each kind in turn, extremes, and drawn ones."""
    by_kind: dict[tuple[float, str], list[list[Place]]] = defaultdict(list)
    for one in candidates:
        for kind, found in one.kinds.items():
            by_kind[-one.severities[kind], kind].append(found.places())
    bad = list(_in_turn([list(_in_turn(lists)) for _, lists in sorted(by_kind.items())]))
    extreme = _in_turn([e.places() for one in candidates for e in one.extremes.values()])
    good = _in_turn([one.good.places() for one in candidates])
    chosen: dict[Place, None] = {}
    _take(chosen, bad, round(limit * WORST_SHARE))
    _take(chosen, extreme, round(limit * (WORST_SHARE + EXTREME_SHARE)))
    _take(chosen, good, limit)
    _take(chosen, bad, limit)
    return list(chosen)


def _take(chosen: dict[Place, None], places: Iterable[Place], until: int) -> None:
    for place in places:
        if len(chosen) >= until:
            return
        chosen.setdefault(place)


def _in_turn(lists: Sequence[Sequence[Place]]) -> Iterator[Place]:
    for places in zip_longest(*lists):
        yield from (place for place in places if place is not None)
