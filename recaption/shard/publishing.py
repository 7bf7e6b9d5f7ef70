"""Publishes a finished shard: sidecar, then tar, then marker, each whole and only once.

The first attempt that publishes one of these files decides its content, and other attempts go on from
it. The marker comes last, since its presence says that the shard is settled: whole, or given up
(which needs neither sidecar nor tar).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from recaption.errors import ShardError
from recaption.run import publish, shared
from recaption.run.crash_points import crash_point
from recaption.run.digest import sha256_of
from recaption.run.paths import RunPaths
from recaption.run.rows import read_rows

Rows = list[dict[str, Any]]
Files = dict[str, dict[str, Any]]  # "tar" and "sidecar" of a marker: hash and size of each


@dataclass(frozen=True)
class Published:
    """A published shard: its rows and its marker."""

    rows: Rows
    record: dict[str, Any]  # the marker that this call made, or would have made
    won: bool  # this call made the marker


def publish_shard(
    paths: RunPaths,
    name: str,
    tag: str,
    *,
    sidecar: Path | Callable[[Path], object],
    tar: Callable[[BinaryIO, Rows], str],
    record: Callable[[Rows, Files], dict[str, Any]],
) -> Published:
    """Publish a shard; `tag` makes the names of temporary files unique.

    `sidecar` is the path of a finished sidecar, which is linked, or a function that writes one to a
    path; `tar` writes the tar of the published rows and returns its sha256; `record` makes the marker.
    Raises ShardError if a tar or linked sidecar exists already and differs.
    """
    place, target = paths.sidecar(name), paths.marker(name)
    _publish_sidecar(place, paths.temporary(place, tag), sidecar)
    with whole_sidecar(place):
        rows = read_rows(place)
    made = _publish_tar(paths.tar(name), paths.temporary(paths.tar(name), tag), tar, rows)
    files = {"tar": made, "sidecar": {"sha256": sha256_of(place), "size": shared.size(place)}}
    content = record(rows, files)
    crash_point("before-marker")
    won = publish.create(target, publish.to_json(content), paths.temporary(target, tag))
    crash_point("marked")
    return Published(rows, content, won)


@contextmanager
def whole_sidecar(sidecar: Path) -> Iterator[None]:
    """Turn what reading a damaged sidecar raises into ShardError."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as e:
        raise ShardError(f"{sidecar}: not a whole sidecar: {e}") from None


def _publish_sidecar(final: Path, temporary: Path, source: Path | Callable[[Path], object]) -> None:
    if isinstance(source, Path):
        publish.share([(source, final, temporary)])
        if sha256_of(source) != sha256_of(final):
            raise _foreign(final)
    elif not shared.exists(final):
        with publish.disk_errors(final), publish.gone_on_error(temporary):
            source(temporary)
        publish.publish(temporary, final)


def _publish_tar(
    final: Path, temporary: Path, write: Callable[[BinaryIO, Rows], str], rows: Rows
) -> dict[str, Any]:
    with (
        publish.disk_errors(final),
        publish.gone_on_error(temporary),
        temporary.open("wb", 1 << 20) as out,
    ):
        digest = write(out, rows)
        size = out.tell()
    if not publish.publish(temporary, final) and sha256_of(final) != digest:
        raise _foreign(final)
    return {"sha256": digest, "size": size}


def _foreign(path: Path) -> ShardError:
    return ShardError(f"{path} exists and is not this run's; move it away")
