"""recaption.report: runs as one page to look at, pictures and captions side by side."""

from recaption.report.command import main

__all__ = ["main"]
