"""The only module that links or renames: files appear whole, under their final name, once.

First writer wins by link(2), which is atomic also on NFS; measured against writing in place and
against rename, it was the only one that left no pair of a tar and a marker by different writers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recaption.errors import DiskFull, TaskError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
RENAME_NOREPLACE = 1
AT_FDCWD = -100


def publish(temporary: Path, final: Path) -> bool:
    """Make `temporary` appear as `final` unless that exists; True if this call did it.

    The file's bytes and the directory entry are on disk when this returns. `temporary` is gone
    afterwards, whoever won.
    """
    with disk_errors():
        _sync(temporary)
        won = _link(temporary, final)
        _sync(final.parent)
        temporary.unlink(missing_ok=True)
    return won


def create(path: Path, content: bytes, temporary: Path) -> bool:
    """Create `path` with exactly `content` unless it exists; True if this call did it."""
    with disk_errors():
        try:
            temporary.write_bytes(content)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    return publish(temporary, path)


def replace(path: Path, content: bytes, temporary: Path) -> None:
    """Write a file that may change (a hint, a report): readers see the old or the new one."""
    with disk_errors():
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def to_json(value: Any) -> bytes:
    """Readable, stable JSON."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn a full disk or quota into DiskFull, which ends the task."""
    try:
        yield
    except OSError as e:
        if e.errno in NO_SPACE:
            raise DiskFull(f"no space left for {e.filename or 'the run'}: {e.strerror}") from e
        raise


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link(temporary: Path, final: Path) -> bool:
    try:
        os.link(temporary, final)
        return True
    except FileExistsError:
        return _same_file(temporary, final)
    except OSError as e:
        if e.errno not in NO_LINK:
            if _same_file(temporary, final):  # the reply got lost, the link did not (NFS)
                return True
            raise
    return _rename_exclusively(temporary, final)


def _same_file(temporary: Path, final: Path) -> bool:
    try:
        return os.path.samefile(temporary, final)
    except FileNotFoundError:
        return False


def _rename_exclusively(temporary: Path, final: Path) -> bool:
    """Where the file system refuses hard links: renameat2(2) that never replaces."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(temporary), os.fsencode(final)
    if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    raise TaskError(
        f"{final.parent}: this file system refuses both hard links and exclusive renames "
        f"({os.strerror(code)}); put output.dir on another one"
    )
