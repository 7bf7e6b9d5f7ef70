"""recaption.stop: ends what works on a run, wherever it waits or runs."""

from recaption.stop.command import main

__all__ = ["main"]
