"""How a task is asked to stop: USR2 lets it harvest and requeues it, TERM ends it at once."""

from __future__ import annotations

import signal
import time
from types import FrameType

from recaption.pipeline.loop import DRAIN, NOW

HARVEST = 0.8  # of the signal delay at most; the rest is for flushing and requeueing
RESERVE = 10.0  # seconds for that, where half of the delay allows it


class Stopping:
    """A flag in place of submitit's signal handlers, which work inside the handler."""

    def __init__(self) -> None:
        self.harvest_seconds = 0.0
        self.drain_since: float | None = None
        self.terminated = False
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def allow(self, signal_delay: float) -> None:
        """How many seconds after USR2 the task's time will be over."""
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
        """Only USR2 asks for a requeue, and never once TERM came: scancel sends that."""
        return self.drain_since is not None and not self.terminated

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number != signal.SIGUSR2:
            self.terminated = True
        elif self.drain_since is None:
            self.drain_since = time.monotonic()
