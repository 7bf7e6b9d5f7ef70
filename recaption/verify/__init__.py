"""recaption.verify: is what a run has published whole, right, and loadable?"""

from recaption.verify.command import main

__all__ = ["main"]
