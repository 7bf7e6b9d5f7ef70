"""A command's progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from recaption.cli.terminal import is_live

T = TypeVar("T")
LINE_SECONDS = 10.0  # between two lines, at least
BAR_SECONDS = 0.1  # between two states of the bar, at least
MANY = 100  # with fewer items to do, no line is printed at the start


class Progress:
    """Shows how many of `total` are done; with `announce` also at the start, if there are many."""

    def __init__(self, total: int, unit: str, *, announce: bool = True) -> None:
        self.total, self.unit, self.done = total, unit, 0
        self.live = is_live(sys.stderr)
        self.interval = BAR_SECONDS if self.live else LINE_SECONDS
        self.bar = tqdm(total=total, unit=unit, disable=not self.live, leave=False)
        self.started = self.said = time.monotonic()
        self.line = ""
        if announce and total >= MANY:
            self.show(0, at_once=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, count: int = 1) -> None:
        """Count more items as done."""
        self.show(self.done + count)

    def show(self, done: int, text: str = "", *, at_once: bool = False) -> None:
        """Show how many items are done, with `text`; not more often than allowed, unless `at_once`."""
        self.done = done
        now = time.monotonic()
        if not at_once and now - self.said < self.interval:
            return
        self.said = now
        if self.live:
            self.bar.n = done
            self.bar.set_postfix_str(text)
            return
        more = text or self._left(now)
        line = f"{done} of {self.total} {self.unit}s{more and f', {more}'}"
        if line != self.line:
            print(line, file=sys.stderr, flush=True)
        self.line = line

    def _left(self, now: float) -> str:
        rate = self.done / (now - self.started or 1.0)
        return f"{(self.total - self.done) / rate:.0f} s left" if rate else ""


def with_progress(results: Iterable[T], total: int, unit: str = "shard") -> Iterator[T]:
    """Pass results on, and show how many there were so far."""
    with Progress(total, unit) as progress:
        for result in results:
            yield result
            progress.update()
