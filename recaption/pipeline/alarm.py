"""Stops a task whose samples are mostly rejected or failed, instead of publishing them."""

from __future__ import annotations

from collections import Counter

from recaption.run.alarm import BAD, verdict
from recaption.run.rows import FILTERED, STATES, kind_of

FROM = 256  # samples, without filtered ones, from which on the alarm may ring


class Alarm:
    """data.alarm, over the samples that an attempt settles."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def rings(self, status: str, reason: str) -> str:
        """Count one more sample; returns why the task should stop, or ''."""
        if status in STATES and status != FILTERED:
            self.counts[status] += 1
        if status in BAD:
            self.reasons[kind_of(status, reason)] += 1
        if self.counts.total() < FROM:
            return ""
        return verdict(self.share, self.counts, self.reasons, "that this task has settled")
