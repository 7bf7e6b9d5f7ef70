"""Stopping a task: USR2 lets it finish what is in flight and requeues it, TERM ends it at once."""

from __future__ import annotations

import signal
import time
from types import FrameType

from recaption.pipeline.loop import DRAIN, NOW

HARVEST = 0.8  # share of the signal delay for finishing; the rest is for flush and requeue
RESERVE = 10.0  # seconds for flush and requeue, but at most half of the delay


class Stopping:
    """Signal handlers that only set a flag, unlike submitit's, which do their work in the handler."""

    def __init__(self) -> None:
        self.harvest_seconds = 0.0
        self.drain_since: float | None = None
        self.terminated = False
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def allow(self, signal_delay: float) -> None:
        """Set how many seconds after USR2 the task will be killed."""
        most = min(HARVEST * signal_delay, signal_delay - RESERVE)
        self.harvest_seconds = max(most, signal_delay / 2)

    def state(self) -> str:
        """ "" to go on, DRAIN to take no more samples, NOW to flush and leave."""
        if self.terminated:
            return NOW
        if self.drain_since is None:
            return ""
        return DRAIN if time.monotonic() - self.drain_since < self.harvest_seconds else NOW

    def wants_requeue(self) -> bool:
        """Whether to requeue: after USR2, unless TERM came, which scancel sends."""
        return self.drain_since is not None and not self.terminated

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number != signal.SIGUSR2:
            self.terminated = True
        elif self.drain_since is None:
            self.drain_since = time.monotonic()
