"""Defects that verify finds, and their collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SHOWN_PER_KIND = 10  # defects of a kind that are kept per shard


@dataclass(frozen=True)
class Defect:
    """Something that is wrong: `kind` is stable, `text` is for people."""

    shard: str  # the output shard's name; empty for the run as a whole
    kind: str
    text: str


@dataclass
class Findings:
    """Defects of one shard, or of the run as a whole."""

    shard: str = ""
    defects: list[Defect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, text: str, shard: str | None = None) -> None:
        """Add a defect; only the first SHOWN_PER_KIND of a kind are kept."""
        self.kinds[kind] += 1
        if self.kinds[kind] <= SHOWN_PER_KIND or not self.shard:
            self.defects.append(Defect(self.shard if shard is None else shard, kind, text))

    @contextmanager
    def unreadable(self, kind: str, what: str, *errors: type[Exception]) -> Iterator[None]:
        """Turn errors of these types into a defect."""
        try:
            yield
        except errors as e:
            self.add(kind, f"{what}: {e}")
