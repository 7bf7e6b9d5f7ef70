"""recaption.filter: a new run from the samples of another that fulfill an expression."""

from recaption.filter.command import main

__all__ = ["main"]
