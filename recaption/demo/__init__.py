"""recaption.demo: draws four small shards and recaptions them with the tiny model, all here."""

from recaption.demo.command import main

__all__ = ["main"]
