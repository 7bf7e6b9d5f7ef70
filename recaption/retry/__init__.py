"""recaption.retry: what a run lacks, in place, or some of its samples again in a new run."""

from recaption.retry.command import main

__all__ = ["main"]
