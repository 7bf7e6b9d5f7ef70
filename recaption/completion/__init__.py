"""recaption.completion: prints a script that lets a shell complete recaption's words."""

from recaption.completion.command import main

__all__ = ["main"]
