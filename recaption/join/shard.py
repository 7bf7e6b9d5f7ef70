"""One full shard from its source and the rows of a captions-only run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from recaption.errors import InputChanged, ShardError
from recaption.run import publish, shared
from recaption.run.digest import sha256_of
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run
from recaption.run.rows import count_states, read_rows
from recaption.run.scan import marker, salvages
from recaption.shard import source
from recaption.shard.index import Index, index_shard
from recaption.shard.settings import settings_of
from recaption.shard.write import Reader, Settings, source_text, write_tar

LARGEST_SPOOL = 1 << 44

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """What all shards of a join have in common."""

    parent: RunPaths
    paths: RunPaths
    run: Run  # the joined one
    spool: str | None
    tag: str


@dataclass(frozen=True)
class Joined:
    """What became of one shard: its rows, or why there is none."""

    name: str
    rows: Rows
    error: str = ""


def join_shard(job: Job, shard: InputShard) -> Joined:
    """Publish tar, sidecar and marker of one shard."""
    try:
        return Joined(shard.name, _published(job, shard))
    except (ShardError, OSError) as e:
        return Joined(shard.name, [], str(e))


def whole(paths: RunPaths, name: str) -> bool:
    """Whether a marked shard's files are there with the sizes that its marker states."""
    record = _marker(paths, name)
    places = {"tar": paths.tar(name), "sidecar": paths.sidecar(name)}
    return all(
        shared.exists(place) and shared.size(place) == record[key]["size"]
        for key, place in places.items()
    )


def _marker(paths: RunPaths, name: str) -> dict[str, Any]:
    try:
        return marker(paths, name)
    except ValueError:
        raise ShardError(f"{paths.marker(name)} is damaged; verify {paths.root}") from None


def _published(job: Job, shard: InputShard) -> Rows:
    parent, paths, name = job.parent, job.paths, shard.name
    record, settings = _marker(parent, name), settings_of(job.run)
    sidecar, tar, target = paths.sidecar(name), paths.tar(name), paths.marker(name)
    publish.share([(parent.sidecar(name), sidecar, paths.temporary(sidecar, job.tag))])
    if sha256_of(sidecar) != record["sidecar"]["sha256"]:
        raise ShardError(f"{parent.sidecar(name)} or {sidecar} is damaged; verify {parent.root}")
    rows = read_rows(sidecar)
    temporary = paths.temporary(tar, job.tag)
    with (
        _opened(shard, job.spool) as file,
        publish.disk_errors(temporary),
        publish.gone_on_error(temporary),
        temporary.open("wb", 1 << 20) as out,
    ):
        index = _index(job.run, record, settings, file)
        _check(file, index, rows, record, settings)
        digest = write_tar(out, file, index, rows, settings)
        size = out.tell()
    if not publish.publish(temporary, tar) and sha256_of(tar) != digest:
        raise ShardError(f"{tar} exists and is not what the captions make; move it away")
    made = {
        **record,
        "fingerprint": job.run.fingerprint,
        "counts": count_states(rows),
        "tar": {"sha256": digest, "size": size},
        "sidecar": {"sha256": sha256_of(sidecar), "size": shared.size(sidecar)},
        "finished": time.time(),
    }
    publish.create(target, publish.to_json(made), paths.temporary(target, job.tag))
    return rows


def _index(run: Run, record: dict[str, Any], settings: Settings, file: BinaryIO) -> Index:
    index = index_shard(file, settings.layout, salvage=salvages(record, run))
    return replace(index, samples=index.samples[: run.identity["data.max_samples"]])


def _check(
    file: BinaryIO, index: Index, rows: Sequence[dict[str, Any]], record: Any, settings: Settings
) -> None:
    """The source is the one that was captioned; write_tar checks its pictures."""
    if index.digest != record["input"]["digest"]:
        raise InputChanged("input changed: it is not the shard that the captions were made from")
    reader = Reader(file)
    for sample, row in zip(index.samples, rows, strict=True):
        original = source_text(reader, sample, settings.texts)
        if original.text != row["caption_original"]:
            raise InputChanged(f"input changed: {sample.key} has another original caption")


@contextmanager
def _opened(shard: InputShard, spool: str | None) -> Iterator[BinaryIO]:
    path = source.local_path(shard.source)
    if path is not None and not source.needs_spool(shard.source):
        with Path(path).open("rb") as file:
            yield file
        return
    with source.spool_file(spool, "--spool") as fetched:
        target = f"/proc/{os.getpid()}/fd/{fetched.fileno()}"
        source.fetch(shard.source, target, LARGEST_SPOOL, shard.size)
        yield cast(BinaryIO, fetched)
