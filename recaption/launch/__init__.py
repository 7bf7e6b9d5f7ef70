"""recaption.launch: composes, checks, plans and freezes a run, and submits its tasks."""

from recaption.launch.command import main

__all__ = ["main"]
