"""The files of a run to upload, with the hashes in its markers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recaption.errors import RecaptionError
from recaption.run import shared
from recaption.run.addresses import public
from recaption.run.digest import sha256_of
from recaption.run.paths import RunPaths
from recaption.run.record import Run
from recaption.run.scan import marker, scan


@dataclass(frozen=True)
class File:
    """One file: its path, its name below the destination, and its hash and size from the marker."""

    path: Path
    name: str
    size: int
    sha256: str

    def check(self) -> None:
        """Raise RecaptionError if the file is not what the marker describes."""
        if shared.size(self.path) != self.size or sha256_of(self.path) != self.sha256:
            raise RecaptionError(f"{self.path} is not what its marker says; run recaption.verify")


@dataclass(frozen=True)
class Shard:
    """A published shard: its data, and its marker if that is uploaded, too."""

    name: str
    data: tuple[File, ...]
    marker: File | None

    @cached_property
    def files(self) -> tuple[File, ...]:
        return (*self.data, self.marker) if self.marker else self.data


@dataclass(frozen=True)
class Contents:
    """A run to upload: files to send first, shards by name, files to send last."""

    paths: RunPaths
    first: tuple[File, ...]
    names: tuple[str, ...]
    last: tuple[File, ...]
    shards_only: bool
    given_up: tuple[str, ...]
    missing: int  # shards that are neither published nor given up
    scratch: Path

    def shard(self, name: str) -> Shard:
        """One shard, from its marker."""
        paths = self.paths
        try:
            record = marker(paths, name)
            tar, sidecar = record["tar"], record["sidecar"]
        except (ValueError, KeyError):
            raise RecaptionError(f"{paths.marker(name)} is damaged; run recaption.verify") from None
        data = [self._file(paths.tar(name), tar["size"], tar["sha256"])]
        if self.shards_only:
            return Shard(name, tuple(data), None)
        data.insert(0, self._file(paths.sidecar(name), sidecar["size"], sidecar["sha256"]))
        return Shard(name, tuple(data), _small(paths, paths.marker(name), self.scratch))

    def _file(self, path: Path, size: int, sha256: str) -> File:
        return File(path, str(path.relative_to(self.paths.root)), size, sha256)


def contents(paths: RunPaths, run: Run, scratch: Path, *, shards_only: bool) -> Contents:
    """The published part of a run; sizes.json and the card only where the run is whole.

    Files that have to differ from the run's own are written to the folder `scratch`: in runs of 0.1.0,
    addresses may contain secrets.
    """
    state = scan(paths, run)
    last = [p for p in (paths.card, paths.sizes_json) if not state.unsettled and shared.exists(p)]
    first = [paths.run_json, *map(paths.marker, state.given_up)]
    return Contents(
        paths,
        () if shards_only else tuple(_small(paths, path, scratch) for path in first),
        tuple(state.done),
        tuple(_small(paths, path, scratch) for path in last),
        shards_only,
        tuple(state.given_up),
        state.unsettled,
        scratch,
    )


def _small(paths: RunPaths, path: Path, scratch: Path) -> File:
    """A file that no marker describes, without secrets in addresses."""
    name = path.relative_to(paths.root)
    if path.suffix == ".json":
        content = shared.content(path)
        record = json.loads(content)
        if _cleaned(record):
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(json.dumps(record, ensure_ascii=False).encode())
    return File(path, str(name), shared.size(path), sha256_of(path))


def _cleaned(record: dict[str, Any]) -> bool:
    """Remove secrets from the addresses in a record; True if there were any."""
    before = json.dumps(record)
    for entry in record.get("shards", []):
        entry[0] = public(entry[0])
    if "input" in record:
        record["input"]["url"] = public(record["input"]["url"])
    return json.dumps(record) != before
