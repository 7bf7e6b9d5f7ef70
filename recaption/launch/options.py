"""What the configuration is composed from, besides KEY=VALUE words."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Presets of the user's own, and whether the composed configuration is only shown."""

    config_dir: str | None = None
    config_name: str = "config"
    show_config: bool = False

    @classmethod
    def of(cls, arguments: Namespace) -> Options:
        """Those of a command's arguments."""
        shown = getattr(arguments, "cfg", None) is not None
        return cls(arguments.config_dir, arguments.config_name, shown)
