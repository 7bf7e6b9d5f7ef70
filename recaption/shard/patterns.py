"""Expands patterns of shards: braces, globs, folders, lists and list files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from recaption.errors import UserError, bad_value
from recaption.run.output_names import PIPE, is_tar
from recaption.run.record import FIRST_RULES, Run
from recaption.shard import remote
from recaption.shard.source import local_path

RANGE = re.compile(r"(\d+)\.\.(\d+)")
LISTS = (".txt", ".list")
MAX_SHARDS = 10_000_000
SHOWN = 5  # names in a message


class Patterns:
    """Expands data.shards, and notes which matched files are no tars.

    With `every_file`, a glob takes every file it matches, as in 0.1.0.
    """

    def __init__(self, *, every_file: bool = False) -> None:
        self.every_file = every_file
        self.passed_over: list[str] = []

    def remark(self) -> str:
        """A remark about files that were passed over; '' if there were none."""
        passed = self.passed_over
        return f"data.shards: passed over what is no tar, {_few(passed)}" if passed else ""

    def expand(self, shards: Any) -> Iterator[str]:
        """Every input of data.shards in order, local ones as absolute paths.

        A brace pattern, a glob, a folder, a list of those, or a .txt/.list file of lines. Raises
        UserError when a pattern names or matches nothing.
        """
        patterns = _split_list(shards) if isinstance(shards, str) else map(str, shards)
        for pattern in patterns:
            yield from self._one(pattern, ())

    def _one(self, pattern: str, lists: tuple[str, ...]) -> Iterator[str]:
        """The inputs of one pattern; `lists` are the list files around it, outermost first."""
        if not pattern.strip():
            raise bad_value("data.shards", repr(pattern), "names no shard")
        if pattern.startswith(PIPE):
            yield from braces(pattern)
        elif pattern.endswith(LISTS) and "://" not in pattern:
            path = os.path.realpath(os.path.expanduser(pattern))
            if path in lists:
                raise bad_value("data.shards", lists[0], f"{lists[-1]} names {path} again")
            for line in _lines(pattern):
                yield from self._one(line, (*lists, path))
        else:
            for url in braces(pattern):
                yield from self._matching(url, pattern)

    def _matching(self, url: str, pattern: str) -> Iterable[str]:
        """A URL or path itself, the tars in a folder, or the files that match a glob."""
        if "://" in url:
            path = local_path(url)
            if path is None:
                found = remote.matching(url)
                return [url] if found is None else self._tars(found, pattern)
            url = str(path)
        text = os.path.abspath(os.path.expanduser(url))
        if not glob.has_magic(text) or os.path.exists(text):
            if is_tar(text) or not os.path.isdir(text):
                return [text]
            return self._tars(_entries(text, pattern), pattern)
        return self._tars(glob.glob(text, recursive=not self.every_file), pattern)

    def _tars(self, found: list[str], pattern: str) -> list[str]:
        tars = sorted(name for name in found if self.every_file or is_tar(name))
        others = sorted({*found} - {*tars})
        if not tars:
            reason = f"matches no tar, but {_few(others)}" if others else "matches no file"
            raise bad_value("data.shards", pattern, reason)
        self.passed_over += others
        return tars


def patterns_of(run: Run | None) -> Patterns:
    """The expansion that a run's rules prescribe; today's without a run."""
    return Patterns(every_file=run is not None and run.rules == FIRST_RULES)


def expand(shards: Any, patterns: Patterns | None = None) -> list[str]:
    """Every input of data.shards in order; UserError if there is none, or too many."""
    found = list(islice((patterns or Patterns()).expand(shards), MAX_SHARDS + 1))
    if len(found) > MAX_SHARDS:
        raise UserError(f"data.shards: more than {MAX_SHARDS} shards")
    if not found:
        raise bad_value("data.shards", shards, "names no shard")
    return found


def first_shard(shards: Any) -> str:
    """The first of expand(shards)."""
    for shard in Patterns().expand(shards):
        return shard
    raise bad_value("data.shards", shards, "names no shard")


def braces(pattern: str) -> list[str]:
    """Expand `{00..07}` (zero-padded as written) and `{a,b}`, nested ones too, in bash's order."""
    start = pattern.find("{")
    while start >= 0:
        end = _closing(pattern, start)
        options = _options(pattern[start + 1 : end]) if end else []
        if options:
            tails = braces(pattern[end + 1 :])
            return [pattern[:start] + option + tail for option in options for tail in tails]
        start = pattern.find("{", start + 1)
    return [pattern]


def _closing(pattern: str, start: int) -> int:
    """The position that closes the brace opened at `start`; 0 if none does."""
    depth = 0
    for i in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[i], 0)
        if not depth:
            return i
    return 0


def _options(body: str) -> list[str]:
    """The texts that a brace with this body expands to; none if the brace is literal."""
    match = RANGE.fullmatch(body)
    if match:
        low, high = int(match[1]), int(match[2])
        if high < low or high - low > MAX_SHARDS:
            raise bad_value("data.shards", f"{{{body}}}", "this range is empty or too large")
        width = len(match[1]) if match[1].startswith("0") or len(match[1]) == len(match[2]) else 0
        return [f"{i:0{width}d}" for i in range(low, high + 1)]
    pieces = _split(body)
    return [option for piece in pieces for option in braces(piece)] if len(pieces) > 1 else []


def _split(text: str) -> list[str]:
    """Split at the commas outside of braces."""
    pieces, depth = [""], 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and not depth:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _split_list(shards: str) -> list[str]:
    """`[a,b]` as a list; commas inside braces do not split."""
    if not (shards.startswith("[") and shards.endswith("]") and not glob.glob(shards)):
        return [shards]
    return [p.strip().strip("'\"") for p in _split(shards[1:-1]) if p.strip()]


def _lines(pattern: str) -> list[str]:
    """The lines of a list file, without empty lines and comments."""
    try:
        text = Path(pattern).expanduser().read_text("utf-8-sig")
    except OSError as e:
        raise bad_value("data.shards", pattern, f"cannot read this list: {e.strerror}") from None
    except UnicodeDecodeError as e:
        line = e.object.count(b"\n", 0, e.start) + 1
        raise bad_value("data.shards", pattern, f"line {line} of this list is not UTF-8") from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _entries(folder: str, pattern: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)]
    except OSError as e:
        raise bad_value("data.shards", pattern, f"cannot be listed: {e.strerror}") from None


def _few(names: Sequence[str]) -> str:
    """The number of files and the first few names, as text."""
    shown = ", ".join(os.path.basename(name) for name in names[:SHOWN])
    return f"{len(names)} other{'s' * (len(names) > 1)}: {shown}{', …' * (len(names) > SHOWN)}"
