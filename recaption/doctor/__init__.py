"""recaption.doctor: checks a site before the first array."""

from recaption.doctor.command import main

__all__ = ["main"]
