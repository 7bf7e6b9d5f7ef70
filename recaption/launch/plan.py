"""From data.shards and data.range to inputs, and from inputs to the tasks' slices."""

from __future__ import annotations

import glob
import heapq
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from recaption.config.schema import Config
from recaption.errors import UserError, bad_value
from recaption.run.names import PIPE, is_tar, output_names
from recaption.run.record import InputShard
from recaption.shard import remote
from recaption.shard.source import local_path

RANGE = re.compile(r"(\d+)\.\.(\d+)")
MAX_SHARDS = 10_000_000
SHOWN = 5  # names in a message


class Patterns:
    """Expands data.shards, and notes which files a pattern matched that are no tars.

    With `every_file`, a glob takes whatever it matches, as 0.1.0 had it.
    """

    def __init__(self, *, every_file: bool = False) -> None:
        self.every_file = every_file
        self.passed_over: list[str] = []

    def remark(self) -> str:
        """What to say about files that were passed over; empty where there were none."""
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
        """What one pattern stands for; `lists` are those that name it, outermost first."""
        if not pattern.strip():
            raise bad_value("data.shards", repr(pattern), "names no shard")
        if pattern.startswith(PIPE):
            yield from braces(pattern)
        elif pattern.endswith((".txt", ".list")) and "://" not in pattern:
            path = os.path.realpath(os.path.expanduser(pattern))
            if path in lists:
                raise bad_value("data.shards", lists[0], f"{lists[-1]} names {path} again")
            for line in _lines(pattern):
                yield from self._one(line, (*lists, path))
        else:
            for url in braces(pattern):
                yield from self._matching(url, pattern)

    def _matching(self, url: str, pattern: str) -> Iterable[str]:
        """A URL or path as it is, the tars of a folder, or those that match a glob."""
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


def expand(shards: Any, patterns: Patterns | None = None) -> list[str]:
    """Every input of data.shards in order; UserError where there is none, or too many."""
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


def select(spec: Any, count: int) -> list[int]:
    """Positions named by data.range, such as `0-575`, `0-3,8,10-`; all for None."""
    if spec is None:
        return list(range(count))
    chosen: list[int] = []
    for piece in str(spec).split(","):
        match = re.fullmatch(r"(\d+)(?:(-)(\d*))?", piece.strip())
        if not match:
            raise bad_value("data.range", spec, "use positions like 0-575 or 0-3,8,10-")
        first = int(match[1])
        last = first if not match[2] else int(match[3]) if match[3] else count - 1
        if first >= count or last >= count or last < first:
            raise bad_value("data.range", spec, f"there are {count} shards, 0-{count - 1}")
        chosen += range(first, last + 1)
    return sorted(set(chosen))


def inputs(config: Config, patterns: Patterns | None = None) -> list[InputShard]:
    """Expand data.shards, name the outputs, and look up the sizes of those that are local, in S3 or
    on the Hub.

    Raises UserError for a missing shard, colliding names, or `pipe:` without data.allow_pipe.
    """
    urls = expand(config.data.shards, patterns)
    for url in urls:
        if url.startswith(PIPE) and not config.data.allow_pipe:
            raise UserError(f"data.shards: {url}: runs a command; needs data.allow_pipe=true")
        if "://" in url and "@" in url.split("/")[2]:
            raise UserError(
                "data.shards: credentials in a URL would be stored; use the environment"
            )
    _check_schemes(urls)
    repeated = _first_repeated(urls)
    if repeated:
        raise UserError(f"data.shards: {repeated} is named twice")
    sizes = _local_sizes(urls) | remote.sizes(urls)
    names = output_names(urls)
    return [InputShard(u, n, sizes.get(u)) for u, n in zip(urls, names, strict=True)]


def slices(positions: Sequence[int], shards: Sequence[InputShard], tasks: int) -> list[list[int]]:
    """Split positions so that tasks have about the same number of bytes, largest shards first.

    Longest-processing-time-first: within 4/3 of the optimum (Graham 1969). Each slice is in
    order of position. Shards of unknown size count as the mean.
    """
    known = [s for p in positions if (s := shards[p].size) is not None]
    mean = sum(known) / len(known) if known else 1.0
    weights = {p: float(mean if (s := shards[p].size) is None else s) for p in positions}
    heap = [(0.0, task) for task in range(tasks)]
    parts: list[list[int]] = [[] for _ in range(tasks)]
    for position in sorted(positions, key=lambda p: (-weights[p], p)):
        load, task = heapq.heappop(heap)
        parts[task].append(position)
        heapq.heappush(heap, (load + weights[position] + 1, task))
    return [sorted(part) for part in parts]


def data_name(first: str) -> str:
    """The default of data.name: the parent folder of the first shard."""
    path = first.split("?")[0].rstrip("/")
    parent = Path(path.removeprefix(PIPE)).parent.name if not path.startswith(PIPE) else ""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", parent).lstrip("._+-") or "data"


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
    """Where the brace opened at `start` is closed; 0 if nowhere."""
    depth = 0
    for i in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[i], 0)
        if not depth:
            return i
    return 0


def _options(body: str) -> list[str]:
    """What a brace with this body stands for; nothing for one that is literal."""
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
    """Pieces between the commas outside of braces."""
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
    """What a list file names, without empty lines and comments."""
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
    """How many files, and the first of them."""
    shown = ", ".join(os.path.basename(name) for name in names[:SHOWN])
    return f"{len(names)} other{'s' * (len(names) > 1)}: {shown}{', …' * (len(names) > SHOWN)}"


def _local_sizes(urls: Sequence[str]) -> dict[str, int]:
    """Sizes of local shards, by one scan per folder."""
    folders: dict[str, list[str]] = defaultdict(list)
    for url in urls:
        if url.startswith("/"):
            folders[os.path.dirname(url)].append(url)
    sizes: dict[str, int] = {}
    missing = []
    for folder, wanted in folders.items():
        sizes |= _sizes_in(folder, set(wanted)) if len(wanted) > 8 else {}
        for url in wanted:
            if url not in sizes:
                try:
                    sizes[url] = os.stat(url).st_size
                except OSError:
                    missing.append(url)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise bad_value("data.shards", missing[0], f"no such shard{more}")
    return sizes


def _sizes_in(folder: str, wanted: set[str]) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {e.path: e.stat().st_size for e in entries if e.path in wanted}
    except OSError:
        return {}


def _check_schemes(urls: Sequence[str]) -> None:
    """Every remote input's kind of URL can be read by the packages that are installed."""
    far = [u for u in urls if "://" in u and local_path(u) is None and not u.startswith(PIPE)]
    for url in {url.split("://")[0]: url for url in far}.values():
        remote.filesystem(url, "data.shards")


def _first_repeated(urls: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((u for u in urls if u in seen or seen.add(u)), None)  # type: ignore[func-returns-value]
