"""Reads files that tasks on other nodes may replace or remove at any time.

On a network file system, a file that was replaced or removed between this client's look-up and its
open gives a stale file handle, and reads fail for a moment if a server is busy or restarts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

VANISHED = {errno.ENOENT, errno.ESTALE}
PASSING = {errno.ESTALE, errno.EIO, errno.EINTR, errno.ETIMEDOUT, errno.EREMOTEIO}
PAUSES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # seconds between the tries
T = TypeVar("T")


def patiently(look: Callable[[], T]) -> T:
    """The result of `look`, which is tried again for some seconds if it fails temporarily.

    A handle that stays stale raises FileNotFoundError. `look` must only read, since it may run twice.
    """
    for pause in PAUSES:
        try:
            return look()
        except OSError as e:
            if e.errno not in PASSING:
                raise
            _forget(e.filename)
        time.sleep(pause)
    try:
        return look()
    except OSError as e:
        if e.errno == errno.ESTALE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), e.filename) from e
        raise


def _forget(name: str | None) -> None:
    """Make this client ask its server about a file again, instead of trusting its caches.

    GlusterFS otherwise repeats a stale handle as long as its caches last.
    """
    if name is not None:
        with contextlib.suppress(OSError):
            os.getxattr(name, "user.recaption")


def content(path: Path) -> bytes:
    """A file's bytes; FileNotFoundError if it is gone."""
    return patiently(path.read_bytes)


def replaced_content(path: Path) -> bytes:
    """As content, for a file that is replaced but never removed: another node may miss it briefly."""

    def look() -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as e:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path)) from e

    return patiently(look)


def opened(path: Path) -> BinaryIO:
    """A file to be read; FileNotFoundError if it is gone."""
    return patiently(lambda: path.open("rb"))


def size(path: Path) -> int:
    """A file's size; FileNotFoundError if it is gone."""
    return patiently(path.stat).st_size


def exists(path: Path) -> bool:
    """Whether there is such a file or folder."""
    try:
        patiently(path.stat)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def names(folder: Path) -> list[str]:
    """The names in a folder, in no particular order; FileNotFoundError if there is no folder."""
    return patiently(lambda: os.listdir(folder))


def appended(path: Path, *, new: bool = False) -> int:
    """A file descriptor that appends to a file; the umask decides who else may read the file.

    Raises FileExistsError if the file should be `new` and exists.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_EXCL if new else 0)
    return os.open(path, flags, 0o666)


def remove(path: Path) -> None:
    """Remove a file, unless it is gone already."""
    try:
        path.unlink()
    except OSError as e:
        if e.errno not in VANISHED:
            raise
