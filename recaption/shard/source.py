"""Reads input shards: local tars directly, all others through a spool file.

A spool file is an unlinked temporary file that the task holds open; other processes of the task
reach it as /proc/PID/fd/N, and it is gone when the task is, however that ends.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast
from urllib.parse import urlsplit

from recaption.errors import InputChanged, ShardError, SpoolFull, TaskError
from recaption.run.publish import disk_errors
from recaption.shard.compression import LONGEST_MAGIC, compression, decompressed
from recaption.shard.remote import Remote

PIPE = "pipe:"
LARGEST = 1 << 44  # bytes that a command may spool if it has no bound of its own
# Runs a command, and kills all of its processes once this process closes their stdin or is gone.
GUARDED = """exec 3<&0 </dev/null
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
eval "$1"
"""


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
    """data.spool, or else the job's temporary folder."""
    folder = Path(configured or os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def spool_file(configured: str | None, named: str = "data.spool") -> IO[bytes]:
    """An unlinked file in the spool folder; TaskError, with how it was `named`, where none can be
    made."""
    try:
        return tempfile.TemporaryFile(dir=spool_folder(configured))
    except OSError as e:
        raise TaskError(f"{named}: {e} on {socket.gethostname()}") from None


@contextmanager
def opened(url: str, size: int | None = None, spool: str | None = None) -> Iterator[BinaryIO]:
    """A shard to be read at will: a local tar as it is, anything else from a file in `spool`.

    That file, by default in the job's own temporary folder, is gone at the end. Raises what `fetch`
    does, and TaskError where no file can be made.
    """
    path = local_path(url)
    if path is not None and not needs_spool(url):
        with path.open("rb") as file:
            yield file
        return
    with spool_file(spool, "--spool" if spool else "temporary folder") as spooled:
        fetch(url, f"/proc/{os.getpid()}/fd/{spooled.fileno()}", LARGEST, size)
        yield cast(BinaryIO, spooled)


def fetch(
    url: str,
    target: str,
    limit: int,
    size: int | None = None,
    outage_seconds: float | None = None,
) -> None:
    """Copy a shard, decompressed, into the file at `target`.

    Raises ShardError when it cannot be read to its end, SpoolFull when it grows beyond `limit` bytes,
    InputChanged when a remote one no longer has `size` bytes, and DiskFull when the spool folder has
    no room for it. A store that was away for no longer than `outage_seconds` is waited for.
    """
    with open(target, "r+b", buffering=0) as out, _raw(url, size, outage_seconds) as raw:
        total = 0
        for chunk in decompressed(raw):
            total += len(chunk)
            if total > limit:
                raise SpoolFull(f"larger than the spool's bound of {limit} bytes")
            with disk_errors(Path(target)):
                while chunk:
                    chunk = chunk[out.write(chunk) :]


@contextmanager
def _raw(url: str, size: int | None, outage_seconds: float | None) -> Iterator[IO[bytes]]:
    path = local_path(url)
    try:
        if path is not None:
            with path.open("rb") as file:
                yield file
        elif url.startswith(PIPE):
            with _command(url.removeprefix(PIPE)) as file:
                yield file
        else:
            with Remote(url, outage_seconds) as remote:
                if None not in (size, remote.size) and size != remote.size:
                    raise InputChanged(f"input changed: {remote.size} bytes, frozen with {size}")
                yield cast(IO[bytes], remote)
    except OSError as e:
        raise ShardError(f"cannot be read: {e}") from None


@contextmanager
def _command(command: str) -> Iterator[IO[bytes]]:
    """A shell command's output; reached only where data.allow_pipe was set."""
    with subprocess.Popen(
        ["/bin/sh", "-c", GUARDED, "sh", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout
            process.stdout.close()
            process.wait()
        finally:
            process.stdin.close()
    if process.returncode:
        raise ShardError(f"{PIPE} command exited with {process.returncode}")
