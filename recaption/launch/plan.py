"""From data.shards and data.range to inputs, and from inputs to the tasks' slices."""

from __future__ import annotations

import heapq
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recaption.config.schema import Config
from recaption.errors import UserError, bad_value
from recaption.run.output_names import PIPE, output_names
from recaption.run.record import InputShard
from recaption.shard import remote
from recaption.shard.patterns import Patterns, expand
from recaption.shard.source import local_path


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
