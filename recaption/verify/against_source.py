"""Compares a published shard with what would be made of its source now."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, cast

from recaption.errors import ShardError
from recaption.run import shared
from recaption.run.addresses import public, without_secrets
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run
from recaption.run.rows import CAPTIONED
from recaption.run.scan import salvages
from recaption.shard import source
from recaption.shard.index import Index, index_shard
from recaption.shard.samples import Sample
from recaption.shard.write import Settings, write_tar
from recaption.verify.defect import Findings


def check_source(
    paths: RunPaths,
    run: Run,
    shard: InputShard,
    record: Mapping[str, Any],
    rows: Sequence[dict[str, Any]],
    settings: Settings,
    found: Findings,
    *,
    whole: bool,
) -> None:
    """Recompute the tar from source and sidecar; `whole` if it is the one its marker describes."""
    try:
        with source.opened(shard.source) as file:
            index = index_shard(file, settings.layout, salvage=salvages(record, run))
            samples = index.samples[: run.identity["data.max_samples"]]
            index = replace(index, samples=samples)
            if index.digest != record["input"]["digest"]:
                found.add(
                    "input changed", f"{public(shard.url)} is not what the captions were made from"
                )
                return
            if [s.key for s in samples] != [row["key"] for row in rows]:
                found.add("wrong rows", f"the sidecar's keys are not those of {public(shard.url)}")
                return
            digest = write_tar(cast(BinaryIO, _Sink()), file, index, rows, settings)
            if digest == record["tar"]["sha256"] and whole:
                return
            if not _compare_samples(paths, file, index, rows, settings, found):
                found.add("wrong tar", "it differs from what its source and sidecar make")
    except (ShardError, OSError) as e:
        found.add("input changed", without_secrets(f"{public(shard.url)}: {e}"))


class _Sink:
    """A file that discards what is written to it."""

    def write(self, content: bytes) -> int:
        return len(content)


def _compare_samples(
    paths: RunPaths,
    file: BinaryIO,
    index: Index,
    rows: Sequence[dict[str, Any]],
    settings: Settings,
    found: Findings,
) -> bool:
    """Name the samples that differ from what would be written; True if there is one."""
    before = sum(found.kinds.values())
    tar = paths.tar(found.shard)
    if not shared.exists(tar):
        return True
    there = _member_hashes(shared.opened(tar))
    for sample, row in zip(index.samples, rows, strict=True):
        if not settings.captions_only and row["status"] != CAPTIONED:
            continue
        expected = _expected(file, sample, row, settings)
        for name, digest in expected.items():
            if there.pop(name, None) != digest:
                found.add("differs from source", f"{name} is not what the source makes")
    for name in there:
        found.add("differs from source", f"{name} is not in the source")
    return sum(found.kinds.values()) > before


def _expected(
    file: BinaryIO, sample: Sample, row: dict[str, Any], settings: Settings
) -> dict[str, str]:
    out = io.BytesIO()
    write_tar(out, file, Index([sample], 0, "", 0), [row], settings)
    out.seek(0)
    return _member_hashes(out)


def _member_hashes(stream: BinaryIO) -> dict[str, str]:
    """sha256 of every member that can be read, by name."""
    hashes = {}
    with stream, tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as tar:
        try:
            for info in tar:
                member = tar.extractfile(info)
                content = member.read() if member else b""
                hashes[info.name] = hashlib.sha256(content).hexdigest()
        except tarfile.TarError:
            pass  # members behind the damage count as missing
    return hashes
