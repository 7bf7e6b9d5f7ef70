"""How a task is asked to stop: USR2 lets it harvest and requeues it, TERM ends it at once."""

from __future__ import annotations

import signal
import time
from types import FrameType

from recaption.pipeline.loop import DRAIN, NOW

MARGIN = 0.2  # of the signal delay, kept for flushing and requeueing


class Stopping:
    """A flag in place of submitit's signal handlers, which work inside the handler."""

    def __init__(self, signal_delay: float) -> None:
        self.drain_seconds = signal_delay * (1 - MARGIN)
        self.drain_since: float | None = None
        self.terminated = False
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def state(self) -> str:
        """ "" to go on, DRAIN to take no more samples, NOW to flush and leave."""
        if self.terminated:
            return NOW
        if self.drain_since is None:
            return ""
        return DRAIN if time.monotonic() - self.drain_since < self.drain_seconds else NOW

    def wants_requeue(self) -> bool:
        """Only USR2 asks for a requeue, and never once TERM came: scancel sends that."""
        return self.drain_since is not None and not self.terminated

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGUSR2:
            self.drain_since = self.drain_since or time.monotonic()
        else:
            self.terminated = True
