"""What became of an upload, and how often something is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from recaption.errors import RecaptionError
from recaption.shard.retrying import retried, said

T = TypeVar("T")
RETRIES = 3
FAILURES = 8  # failures after which the rest is not tried


@dataclass
class Outcome:
    """How many files were sent or were there already, and why others failed."""

    sent: int = 0
    there: int = 0
    size: int = 0  # bytes sent
    failed: dict[str, str] = field(default_factory=dict)
    not_tried: int = 0  # shards
    notes: list[str] = field(default_factory=list)

    @property
    def hopeless(self) -> bool:
        """Whether so much failed that going on makes no sense."""
        return len(self.failed) >= FAILURES

    def add(self, sent: int, there: int, size: int) -> None:
        self.sent, self.there, self.size = self.sent + sent, self.there + there, self.size + size


def tried(action: Callable[[], T], final: Callable[[BaseException], str]) -> T:
    """The result of an action, which is tried again if that may help.

    `final` says why it may not, or nothing. Raises RecaptionError in the end.
    """

    def failed(error: Exception, count: int, pause: float) -> float:
        if why := final(error):
            raise RecaptionError(why) from None
        if count > RETRIES:
            raise RecaptionError(f"{said(error)} ({count} times)") from None
        return pause

    return retried(action, failed)
