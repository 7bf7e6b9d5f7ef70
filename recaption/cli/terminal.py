"""What a stream can show: text that is overwritten, and colors."""

from __future__ import annotations

import os
from typing import TextIO


def is_live(stream: TextIO) -> bool:
    """Whether printed text can be overwritten: on a terminal that is not dumb."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colors(stream: TextIO) -> bool:
    """Whether to print colors: if is_live, unless NO_COLOR (no-color.org) is set and not empty."""
    return is_live(stream) and not os.environ.get("NO_COLOR")


class Style:
    """Marks text with ANSI colors, or not."""

    def __init__(self, stream: TextIO) -> None:
        self.on = has_colors(stream)

    def __call__(self, text: str, *codes: str) -> str:
        return f"\033[{';'.join(codes)}m{text}\033[0m" if self.on and codes else text
