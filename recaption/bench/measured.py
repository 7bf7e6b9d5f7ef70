"""What one part of a benchmark measured, over its whole run and over the middle half of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SERVER = "server"  # the part that is measured only where it is named


@dataclass(frozen=True)
class Measured:
    """Images, seconds and tokens of one part; further figures in `details`.

    `middle` is the rate in images/s between the first and the last quarter of the images, since start
    and end matter in short runs. It is None if the single images were not timed.
    """

    images: int
    seconds: float
    tokens: int
    details: dict[str, Any] = field(default_factory=dict)
    middle: float | None = None

    @property
    def rate(self) -> float:
        """Images/s over the whole run, from empty to empty."""
        return self.images / self.seconds


def middle_rate(times: Sequence[float]) -> float | None:
    """Images/s between the first and the last quarter of `times`, when images were done."""
    ordered = sorted(times)
    first, last = len(ordered) // 4, (3 * len(ordered)) // 4
    if last <= first or ordered[last] <= ordered[first]:
        return None
    return (last - first) / (ordered[last] - ordered[first])
