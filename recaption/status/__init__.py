"""recaption.status: how far runs are, and what is wrong with them."""

from recaption.status.command import main

__all__ = ["main"]
