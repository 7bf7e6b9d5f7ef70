"""recaption.bench: the engine alone, the whole pipeline and a plain baseline, in one run."""

from __future__ import annotations

from recaption.bench.command import main

__all__ = ["main"]
