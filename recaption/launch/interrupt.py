"""Ending a command that waits for tasks."""

from __future__ import annotations

import signal
from types import FrameType


class interruptible:
    """Let TERM end a waiting command as Ctrl-C does, so that it stops its tasks."""

    def __enter__(self) -> None:
        def interrupt(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        self.before = signal.signal(signal.SIGTERM, interrupt)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.before)
