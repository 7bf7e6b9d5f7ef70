"""Where a shard's bytes come from: a local tar as it is, anything else through a spool file.

A spool file is an unlinked temporary file that the task holds open; other processes of the task
reach it as /proc/PID/fd/N, and it is gone when the task is, however that ends.
"""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast
from urllib.parse import urlsplit

from recaption.errors import ShardError

CHUNK = 4 << 20
RETRIES = 5
PIPE = "pipe:"
MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def local_path(url: str) -> Path | None:
    """The path of a local shard; None for a remote one or a command."""
    if url.startswith(PIPE):
        return None
    if url.startswith("file://"):
        return Path(urlsplit(url).path)
    return None if "://" in url else Path(url)


def compression(head: bytes) -> str | None:
    """gzip, xz or zstd, by a file's first bytes; None for a plain file."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def needs_spool(url: str) -> bool:
    """Whether this shard has to be fetched or decompressed before it can be indexed."""
    path = local_path(url)
    if path is None:
        return True
    try:
        with path.open("rb") as file:
            return compression(file.read(6)) is not None
    except OSError as e:
        raise ShardError(f"cannot be read: {e.strerror}") from None


def spool_folder(configured: str | None) -> Path:
    """data.spool, else the job's own temporary folder."""
    folder = Path(configured or os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(url: str, target: str, limit: int) -> None:
    """Copy a shard, decompressed, into the file at `target`.

    Raises ShardError when it cannot be read to its end, or grows beyond `limit` bytes.
    """
    with open(target, "r+b") as out, _raw(url) as raw, _decompressed(raw) as stream:
        total = 0
        try:
            while chunk := stream.read(CHUNK):
                total += len(chunk)
                if total > limit:
                    raise ShardError(f"larger than the spool's bound of {limit} bytes")
                out.write(chunk)
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile, ValueError) as e:
            raise ShardError(f"damaged compression after {total} bytes: {e}") from None


@contextmanager
def _raw(url: str) -> Iterator[IO[bytes]]:
    path = local_path(url)
    try:
        if path is not None:
            with path.open("rb") as file:
                yield file
        elif url.startswith(PIPE):
            with _command(url.removeprefix(PIPE)) as file:
                yield file
        else:
            with _Remote(url) as remote:
                yield cast(IO[bytes], remote)
    except OSError as e:
        raise ShardError(f"cannot be read: {e}") from None


@contextmanager
def _command(command: str) -> Iterator[IO[bytes]]:
    """A shell command's output; reached only where data.allow_pipe was set."""
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
    if process.returncode:
        raise ShardError(f"{PIPE} command exited with {process.returncode}")


class _Remote:
    """A remote file read in order, taken up again at the same byte after a broken connection."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.filesystem, self.path = fsspec.core.url_to_fs(url)
        try:
            self.size: int | None = self.filesystem.info(self.path).get("size")
        except FileNotFoundError:
            raise ShardError("no such remote file") from None
        self.position = 0
        self.file: BinaryIO | None = None

    def __enter__(self) -> _Remote:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()

    def read(self, count: int = CHUNK) -> bytes:
        for attempt in range(RETRIES + 1):
            try:
                if self.file is None:
                    self.file = self.filesystem.open(self.path, "rb", cache_type="readahead")
                    self.file.seek(self.position)
                data: bytes = self.file.read(count)
                break
            except Exception as e:  # every remote library has its own network errors
                if attempt == RETRIES:
                    raise ShardError(f"broke off at byte {self.position}: {e}") from e
                self.file = None
        self.position += len(data)
        if not data and self.size is not None and self.position != self.size:
            raise ShardError(f"ended at byte {self.position} of {self.size}")
        return data


@contextmanager
def _decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    head = raw.read(6)
    joined = cast(IO[bytes], _Joined(head, raw))
    kind = compression(head)
    if kind == "gzip":
        yield cast(IO[bytes], gzip.GzipFile(fileobj=joined))
    elif kind == "xz":
        yield cast(IO[bytes], lzma.LZMAFile(joined))  # noqa: SIM115
    elif kind == "zstd":
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(joined, read_across_frames=True)
        yield cast(IO[bytes], reader)
    else:
        yield joined


class _Joined:
    """A stream with its first bytes put back."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self.head, self.rest = head, rest

    def read(self, count: int = -1) -> bytes:
        if self.head:
            head, self.head = self.head, b""
            return head
        return self.rest.read(count)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return False
