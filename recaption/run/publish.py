"""The only module that links or renames: files appear whole, under their final name, once.

First writer wins by link(2), which is atomic also on NFS; measured against writing in place and
against rename, it was the only one that left no pair of a tar and a marker by different writers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from recaption.errors import DiskFull, TaskError
from recaption.run import shared
from recaption.run.crash_points import crash_point

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
SWEPT = 4  # times in a row that a temporary file may vanish
RENAME_NOREPLACE = 1
AT_FDCWD = -100
T = TypeVar("T")


def publish(temporary: Path, final: Path) -> bool:
    """Make `temporary` appear as `final` unless that exists; True if this call did it.

    The file's bytes and the directory entry are on disk when this returns. `temporary` is gone
    afterwards, whoever won and whatever failed.
    """
    crash_point("written")
    with disk_errors(final), gone_after(temporary):
        _sync(temporary)
        crash_point("synced")
        won = _link(temporary, final)
        crash_point("linked")
        _sync(final.parent)
    crash_point("published")
    return won


def create(path: Path, content: bytes, temporary: Path) -> bool:
    """Create `path` with exactly `content` unless it exists; True if this call did it."""

    def attempt() -> bool:
        _write(temporary, content)
        return publish(temporary, path)

    with disk_errors(path), gone_after(temporary):
        return _persistently(attempt)


def create_all(files: Iterable[tuple[Path, bytes, Path]]) -> None:
    """As create, for many files: each is (path, content, temporary).

    A folder is put on disk once, at the end.
    """
    folders = set()
    with disk_errors():
        for path, content, temporary in files:
            folders.add(path.parent)
            with gone_after(temporary):
                _persistently(functools.partial(_create, path, content, temporary))
        for folder in folders:
            _sync(folder)


def _create(path: Path, content: bytes, temporary: Path) -> bool:
    _write(temporary, content, sync=True)
    return _link(temporary, path)


def replace(path: Path, content: bytes, temporary: Path) -> None:
    """Write a file that may change (a hint, a report): readers see the old or the new one."""

    def attempt() -> None:
        _write(temporary, content)
        crash_point("replacing")
        os.replace(temporary, path)

    with disk_errors(path), gone_after(temporary):
        _persistently(attempt)


@dataclass(frozen=True)
class Abilities:
    """How a file system behaved in try_out: for each ability '' if it is right, else the fault."""

    link: str
    rename: str
    sync: str
    sync_folder: str


def try_out(folder: Path) -> Abilities:
    """Try in `folder`, with files of its own, the operations that publishing relies on."""
    source, second, final, renamed = (folder / n for n in ("a", "b", "linked", "renamed"))
    for path in (source, second):
        path.write_bytes(path.name.encode())

    def link() -> str:
        os.link(source, final)
        try:
            os.link(second, final)
        except FileExistsError:
            return "" if final.read_bytes() == b"a" else "another file has taken its place"
        return "a second link to one name succeeds"

    def rename() -> str:
        if not _renameat2(source, renamed) or renamed.read_bytes() != b"a":
            return "does not move the file"
        return "replaces a file that is there" if _renameat2(second, renamed) else ""

    def sync(path: Path) -> str:
        _sync(path)
        return ""

    return Abilities(
        _reason(link),
        _reason(rename),
        _reason(functools.partial(sync, second)),
        _reason(functools.partial(sync, folder)),
    )


def _reason(attempt: Callable[[], str]) -> str:
    try:
        return attempt()
    except OSError as e:
        return os.strerror(e.errno) if e.errno else str(e)


def share(pairs: Iterable[tuple[Path, Path, Path]]) -> None:
    """Give finished files a second name: each is (file, further name, temporary).

    A hard link, or a copy where the file systems differ or refuse links. A name that exists stays.
    The folders are on disk when this returns.
    """
    folders = set()
    with disk_errors():
        for path, further, temporary in pairs:
            folders.add(further.parent)
            try:
                os.link(path, further)
            except FileExistsError:
                continue
            except OSError as e:
                if e.errno not in {*NO_LINK, errno.EXDEV}:
                    raise
                with gone_on_error(temporary):
                    shutil.copyfile(path, temporary)
                publish(temporary, further)
        for folder in folders:
            _sync(folder)


def to_json(value: Any) -> bytes:
    """Readable, stable JSON."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextlib.contextmanager
def disk_errors(path: Path | None = None) -> Iterator[None]:
    """Turn a full disk or quota into DiskFull, which ends the task; `path` is what is written."""
    try:
        yield
    except OSError as e:
        if e.errno in NO_SPACE:
            what = path or e.filename or "the run"
            raise DiskFull(f"no space left for {what}: {os.strerror(e.errno)}") from e
        raise


@contextlib.contextmanager
def gone_after(temporary: Path) -> Iterator[None]:
    """Remove a temporary file at the end of the block, however that ends."""
    try:
        yield
    finally:
        shared.remove(temporary)


@contextlib.contextmanager
def gone_on_error(temporary: Path) -> Iterator[None]:
    """Remove a temporary file if the block fails."""
    try:
        yield
    except BaseException:
        shared.remove(temporary)
        raise


def _persistently(attempt: Callable[[], T]) -> T:
    """Repeat an action whose temporary file was removed by a clean-up after a published shard or run."""
    for _ in range(SWEPT):
        try:
            return attempt()
        except OSError as e:
            if e.errno not in shared.VANISHED:
                raise
    return attempt()


def _write(path: Path, content: bytes, *, sync: bool = False) -> None:
    with path.open("wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _sync(path: Path) -> None:
    fd = shared.patiently(lambda: os.open(path, os.O_RDONLY))
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
        return shared.patiently(lambda: os.path.samefile(temporary, final))
    except FileNotFoundError:
        return False


def _rename_exclusively(temporary: Path, final: Path) -> bool:
    """Publish without hard links, if the file system refuses them: renameat2(2), never replacing."""
    _say_once(f"{final.parent}: no hard links here, so files are published by exclusive renames")
    try:
        return _renameat2(temporary, final)
    except OSError as e:
        raise TaskError(
            f"{final.parent}: this file system refuses both hard links and exclusive renames "
            f"({e.strerror}); put output.dir on another one"
        ) from None


def _renameat2(temporary: Path, final: Path) -> bool:
    """Rename without replacing; False if `final` exists, OSError if this is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(temporary), os.fsencode(final)
    if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    raise OSError(code, os.strerror(code))


@functools.cache
def _say_once(text: str) -> None:
    print(f"recaption: {text}", file=sys.stderr, flush=True)
