"""Where a shard's bytes come from: a local tar as it is, anything else through a spool file.

A spool file is an unlinked temporary file that the task holds open; other processes of the task
reach it as /proc/PID/fd/N, and it is gone when the task is, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

from recaption.errors import InputChanged, ShardError, TaskError
from recaption.publish import disk_errors
from recaption.shard.compression import CHUNK, LONGEST_MAGIC, compression, decompressed

T = TypeVar("T")
RETRIES = 5
BACKOFF = 0.2  # seconds before the first retry, twice as long before each further one
VERSION = ("Last-Modified", "LastModified", "mtime", "ETag")  # what a file system may know
GONE = (401, 403, 404, 410)  # HTTP status codes that a retry does not change
PIPE = "pipe:"


def local_path(url: str) -> Path | None:
    """The path of a local shard; None for a remote one or a command."""
    if url.startswith(PIPE):
        return None
    if url.startswith("file://"):
        return Path(urlsplit(url).path)
    return None if "://" in url else Path(url)


def needs_spool(url: str) -> bool:
    """Whether this shard has to be fetched or decompressed before it can be indexed."""
    path = local_path(url)
    if path is None:
        return True
    try:
        with path.open("rb") as file:
            return compression(file.read(LONGEST_MAGIC)) is not None
    except OSError as e:
        raise ShardError(f"cannot be read: {e.strerror}") from None


def spool_folder(configured: str | None) -> Path:
    """data.spool, else the job's own temporary folder."""
    folder = Path(configured or os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def spool_file(configured: str | None) -> IO[bytes]:
    """An unlinked file in the spool folder; raises TaskError where none can be made."""
    try:
        return tempfile.TemporaryFile(dir=spool_folder(configured))
    except OSError as e:
        raise TaskError(f"data.spool: {e} on {socket.gethostname()}") from None


def fetch(url: str, target: str, limit: int) -> None:
    """Copy a shard, decompressed, into the file at `target`.

    Raises ShardError when it cannot be read to its end, or grows beyond `limit` bytes; DiskFull
    when the spool folder has no room for it.
    """
    with open(target, "r+b", buffering=0) as out, _raw(url) as raw:
        total = 0
        for chunk in decompressed(raw):
            total += len(chunk)
            if total > limit:
                raise ShardError(f"larger than the spool's bound of {limit} bytes")
            with disk_errors(Path(target)):
                while chunk:
                    chunk = chunk[out.write(chunk) :]


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
    with subprocess.Popen(
        command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield process.stdout
    if process.returncode:
        raise ShardError(f"{PIPE} command exited with {process.returncode}")


class _Remote:
    """A remote file read in order, taken up again at the same byte after a broken connection."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.http = url.startswith(("http://", "https://"))
        options = {"client_kwargs": {"auto_decompress": False}} if self.http else {}
        self.filesystem, self.path = fsspec.core.url_to_fs(url, **options)
        self.position = 0
        self.file: BinaryIO | None = None
        self.ranges = True
        self.identity = self._retried(self._identity)

    def __enter__(self) -> _Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        file, self.file = self.file, None
        if file:
            with contextlib.suppress(Exception):  # it is broken, or of no more use
                file.close()

    def read(self, count: int) -> bytes:
        """The next bytes, none at the end; raises ShardError if that is not the file's end."""
        data = self._retried(lambda: self._read(count))
        self.position += len(data)
        if not data:
            size = self.identity[0]
            if size is not None and self.position != size:
                raise ShardError(f"ended at byte {self.position} of {size}")
            if self._retried(self._identity) != self.identity:
                raise InputChanged("input changed while it was read")
        return data

    def _read(self, count: int) -> bytes:
        if self.file is None:
            self.file = self._open()
        data: bytes = self.file.read(count)
        return data

    def _open(self) -> BinaryIO:
        """At the position: the first time as one stream, later by a range where there are ranges."""
        if self.http and (self.position == 0 or not self.ranges):
            file: BinaryIO = self.filesystem.open(self.path, "rb", block_size=0)
            left = self.position
            while left and (skipped := file.read(min(left, CHUNK))):
                left -= len(skipped)
        else:
            file = self.filesystem.open(self.path, "rb", cache_type="readahead")
            file.seek(self.position)
        return file

    def _identity(self) -> tuple[Any, ...]:
        self.filesystem.invalidate_cache()
        info = self.filesystem.info(self.path)
        return info.get("size"), next((info[name] for name in VERSION if info.get(name)), None)

    def _retried(self, action: Callable[[], T]) -> T:
        for attempt in range(RETRIES + 1):
            try:
                return action()
            except Exception as e:  # noqa: BLE001 - every remote library has its own network errors
                self._close()
                self.ranges = self.ranges and "range requests" not in str(e)
                status = getattr(e.__cause__, "status", None)
                if attempt == RETRIES or status in GONE:
                    what = f"HTTP status {status}" if status else str(e) or type(e).__name__
                    raise ShardError(f"cannot be read from byte {self.position}: {what}") from None
                time.sleep(BACKOFF * 2**attempt)
        raise AssertionError
