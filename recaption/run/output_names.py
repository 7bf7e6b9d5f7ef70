"""Names of output shards, from their inputs."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence
from urllib.parse import urlsplit

from recaption.errors import UserError

SUFFIXES = (".tar.gz", ".tar.xz", ".tar.zst", ".tgz", ".tar")
PIPE = "pipe:"


def is_tar(name: str) -> bool:
    """Whether a file or URL has the name of a tar, plain or compressed."""
    return name.partition("?")[0].lower().endswith(SUFFIXES)


def output_names(shards: Sequence[str]) -> list[str]:
    """One distinct `NAME.tar` per input, in order.

    The base name without query and suffix; where two collide, the path below the deepest common
    folder, joined by `-`; `pipe:` commands get their position. Raises UserError when two inputs
    still share a name.
    """
    width = max(5, len(str(len(shards) - 1)))
    paths = [None if s.startswith(PIPE) else _path(s) for s in shards]
    bases = [
        f"{position:0{width}d}" if path is None else posixpath.basename(path)
        for position, path in enumerate(paths)
    ]
    if len(set(bases)) < len(bases):
        known = [p for p in paths if p is not None]
        common = posixpath.commonpath([posixpath.dirname(p) for p in known]) if known else ""
        counts: dict[str, int] = defaultdict(int)
        for base in bases:
            counts[base] += 1
        for i, path in enumerate(paths):
            if path is not None and counts[bases[i]] > 1:
                bases[i] = posixpath.relpath(path, common or ".").replace("/", "-")
    first: dict[str, str] = {}
    for shard, base in zip(shards, bases, strict=True):
        if base in first:
            raise UserError(
                f"data.shards: {first[base]} and {shard} would both become {base}.tar; "
                "each input needs a name of its own"
            )
        first[base] = shard
    return [f"{base}.tar" for base in bases]


def _path(shard: str) -> str:
    """The path of a URL or file without query and without the shard suffix."""
    path = shard
    if "://" in shard:
        parts = urlsplit(shard)
        path = f"/{parts.netloc}{parts.path}"
    for suffix in SUFFIXES:
        if path.lower().endswith(suffix):
            path = path[: -len(suffix)]
            break
    if not posixpath.basename(path):
        raise UserError(f"data.shards: {shard} has no file name")
    return path
