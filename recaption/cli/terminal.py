"""Progress and colors, as far as a stream can show them: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from tqdm import tqdm

LINE_SECONDS = 5.0
MANY = 100  # with fewer items to do, no line is printed at the start


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


class Progress:
    """Says on stderr how many of `total` are done: a bar, or a line every LINE_SECONDS."""

    def __init__(self, total: int, unit: str) -> None:
        self.total, self.unit, self.done = total, unit, 0
        self.live = is_live(sys.stderr)
        self.bar = tqdm(total=total, unit=unit, disable=not self.live, leave=False)
        self.last_line = self.started = time.monotonic()
        if total >= MANY:
            self._line()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self) -> None:
        """Count one more item as done."""
        self.done += 1
        self.bar.update()
        if time.monotonic() - self.last_line >= LINE_SECONDS:
            self._line()

    def _line(self) -> None:
        if self.live:
            return
        self.last_line = time.monotonic()
        rate = self.done / (self.last_line - self.started or 1.0)
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate else ""
        text = f"{self.done} of {self.total} {self.unit}s{left}"
        print(text, file=sys.stderr, flush=True)
