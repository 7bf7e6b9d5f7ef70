"""One full shard from its source and the rows of a captions-only run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from recaption.errors import InputChanged, ShardError
from recaption.run import shared
from recaption.run.digest import sha256_of
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run
from recaption.run.rows import count_states
from recaption.run.scan import marker, salvages
from recaption.shard import source
from recaption.shard.index import Index, index_shard
from recaption.shard.publishing import Files, Rows, publish_shard
from recaption.shard.settings import settings_of
from recaption.shard.write import Reader, Settings, source_text, write_tar


@dataclass(frozen=True)
class Job:
    """Settings that all shards of a join share."""

    parent: RunPaths
    paths: RunPaths
    run: Run  # the joined one
    spool: str | None
    tag: str


@dataclass(frozen=True)
class Joined:
    """The result for one shard: its rows, or why it was not made."""

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
    parent, name, settings = job.parent, shard.name, settings_of(job.run)
    was = _marker(parent, name)
    if sha256_of(parent.sidecar(name)) != was["sidecar"]["sha256"]:
        raise ShardError(f"{parent.sidecar(name)} is damaged; verify {parent.root}")

    def tar(out: BinaryIO, rows: Rows) -> str:
        with source.opened(shard.source, shard.size, job.spool) as file:
            index = _index(job.run, was, settings, file)
            _check(file, index, rows, was, settings)
            return write_tar(out, file, index, rows, settings)

    def record(rows: Rows, files: Files) -> dict[str, Any]:
        return {
            **was,
            "fingerprint": job.run.fingerprint,
            "counts": count_states(rows),
            **files,
            "finished": time.time(),
        }

    return publish_shard(
        job.paths, name, job.tag, sidecar=parent.sidecar(name), tar=tar, record=record
    ).rows


def _index(run: Run, record: dict[str, Any], settings: Settings, file: BinaryIO) -> Index:
    index = index_shard(file, settings.layout, salvage=salvages(record, run))
    return replace(index, samples=index.samples[: run.identity["data.max_samples"]])


def _check(
    file: BinaryIO, index: Index, rows: Sequence[dict[str, Any]], record: Any, settings: Settings
) -> None:
    """Raise an error unless the source is the one that was captioned; write_tar checks pictures."""
    if index.digest != record["input"]["digest"]:
        raise InputChanged("input changed: it is not the shard that the captions were made from")
    reader = Reader(file)
    for sample, row in zip(index.samples, rows, strict=True):
        original = source_text(reader, sample, settings.texts)
        if original.text != row["caption_original"]:
            raise InputChanged(f"input changed: {sample.key} has another original caption")
