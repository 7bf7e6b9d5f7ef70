"""Uploads to S3: for each shard data, then marker; sizes.json last, since it says that all is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

from recaption.cli.progress import Progress
from recaption.errors import RecaptionError, bad_value
from recaption.shard import remote
from recaption.upload.contents import Contents, File, Shard
from recaption.upload.outcome import Outcome, tried

WORKERS = 8  # shards at a time
PART = 16 << 20  # bytes; files of two parts and more are sent in parts
PARTS = 2  # of one file at a time
MOST_PARTS = 10_000  # that S3 allows per object
HASH = "sha256"  # key in an object's metadata


class Store:
    """Objects below one prefix of a bucket."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.files, path = remote.filesystem(self.url, "DEST")
        self.bucket, _, prefix = path.partition("/")
        self.prefix = f"{prefix}/" if prefix else ""

    def head(self, name: str) -> dict[str, Any] | None:
        """The metadata of an object; None if it does not exist."""
        try:
            found: dict[str, Any] = self.files.call_s3(
                "head_object", Bucket=self.bucket, Key=self.prefix + name
            )
        except FileNotFoundError:
            return None
        return found

    def has(self, file: File) -> bool:
        """Whether the object has this file's size, and the hash that was sent with it."""
        found = self.head(file.name)
        return (
            found is not None
            and found["ContentLength"] == file.size
            and found.get("Metadata", {}).get(HASH) == file.sha256
        )

    def put(self, file: File) -> None:
        """Send a file; the client library adds a checksum of the bytes, which the store compares."""
        part = max(PART, -(-file.size // MOST_PARTS))
        self.files.put_file(
            str(file.path),
            f"{self.bucket}/{self.prefix}{file.name}",
            chunksize=part,
            max_concurrency=PARTS,
            Metadata={HASH: file.sha256},
        )
        if not self.has(file):
            raise OSError(f"{file.name} is not there as it was sent")

    def delete(self, name: str) -> None:
        self.files.call_s3("delete_object", Bucket=self.bucket, Key=self.prefix + name)

    def read(self, name: str) -> bytes | None:
        """The bytes of a small object; None if it does not exist."""
        try:
            content: bytes = self.files.cat_file(f"{self.bucket}/{self.prefix}{name}")
        except FileNotFoundError:
            return None
        return content


def upload(url: str, whole: Contents, fingerprint: str) -> Outcome:
    """Send what the bucket lacks; UserError if it cannot be used or has another run there."""
    store = Store(url)
    _check(store, whole, fingerprint)
    outcome = Outcome()
    sent, there, size = _files(store, whole.first)
    outcome.add(sent, there, size)
    with Progress(len(whole.names), "shard") as progress:
        for name, result in _shards(store, whole, outcome):
            if isinstance(result, str):
                outcome.failed[name] = result
            else:
                outcome.add(*result)
            progress.update()
    outcome.not_tried = len(whole.names) - progress.done if outcome.hopeless else 0
    if not outcome.failed:
        outcome.add(*_files(store, whole.last))
    return outcome


def _check(store: Store, whole: Contents, fingerprint: str) -> None:
    def look() -> bytes | None:
        store.files.call_s3("list_objects_v2", Bucket=store.bucket, Prefix=store.prefix, MaxKeys=1)
        return store.read(whole.paths.run_json.relative_to(whole.paths.root).as_posix())

    there = remote.asked(look, store.url, "DEST")
    try:
        other = there is not None and json.loads(there)["fingerprint"] != fingerprint
    except (ValueError, KeyError, TypeError):
        other = True
    if other:
        raise bad_value("DEST", store.url, "holds another run; choose another prefix")


def _shards(
    store: Store, whole: Contents, outcome: Outcome
) -> Iterator[tuple[str, tuple[int, int, int] | str]]:
    """Shards as they are done: how many files were sent, were there, bytes; or why it failed."""
    stop = Event()

    def one(name: str) -> tuple[str, tuple[int, int, int] | str] | None:
        if stop.is_set():
            return None
        try:
            return name, _shard(store, whole.shard(name))
        except (RecaptionError, OSError) as e:
            return name, str(e)

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for result in pool.map(one, whole.names):
                if result:
                    yield result
                if outcome.hopeless:
                    stop.set()
        finally:
            stop.set()


def _shard(store: Store, shard: Shard) -> tuple[int, int, int]:
    missing = [file for file in shard.data if not _tried(store, store.has, file)]
    if shard.marker is None:
        return _sent(store, shard.data, missing)
    marked = _tried(store, store.has, shard.marker)
    if missing and _tried(store, store.head, shard.marker.name):
        _tried(store, store.delete, shard.marker.name)  # never a marker without its data
        marked = False
    sent = _sent(store, shard.data, missing)
    last = _sent(store, (shard.marker,), [] if marked else [shard.marker])
    return sent[0] + last[0], sent[1] + last[1], sent[2] + last[2]


def _files(store: Store, files: tuple[File, ...]) -> tuple[int, int, int]:
    return _sent(store, files, [file for file in files if not _tried(store, store.has, file)])


def _sent(store: Store, files: tuple[File, ...], missing: list[File]) -> tuple[int, int, int]:
    for file in missing:
        file.check()
        _tried(store, store.put, file)
    return len(missing), len(files) - len(missing), sum(file.size for file in missing)


def _tried(store: Store, action: Any, argument: Any) -> Any:
    return tried(lambda: action(argument), lambda e: remote.reason(store.url, e))
