"""Shards behind URLs: which packages they need, their sizes, and their bytes in order."""

from __future__ import annotations

import contextlib
import posixpath
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from glob import has_magic
from typing import Any, BinaryIO, TypeVar

from recaption.errors import InputChanged, ShardError, UserError, bad_value
from recaption.run.output_names import is_tar
from recaption.shard.compression import CHUNK
from recaption.shard.retrying import retried, said

T = TypeVar("T")
OUTAGE_SECONDS = 900.0  # for which a store that has answered may be unreachable
STRANGER_SECONDS = 30.0  # the same for a store that has not answered this process yet
SAID_SECONDS = 3.0  # pauses of this length and more are announced
READAHEAD = 16 << 20  # bytes per range request
VERSION = ("Last-Modified", "mtime", "ETag")  # tell a file's version; mirrors differ in ETag
STORED = ("ETag", "blob_id", "LastModified")  # the same of a store, whose times are in seconds
BUSY = (408, 425, 429)  # HTTP status codes below 500 that are temporary
LASTING = (501, 505)  # HTTP status codes from 500 on that are permanent
EXTRAS = {"s3": "s3", "s3a": "s3"}  # kind of URL → optional extra of this package
STORES = ("s3://", "s3a://", "hf://")  # stores whose folders can be listed
FEW = 8  # shards of one folder that are looked up one by one
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")


def filesystem(url: str, what: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and its path there; UserError if a package is missing.

    `what` names the key or argument that has the URL.
    """
    import fsspec

    scheme = url.split("://")[0].split("::")[-1]
    if scheme == "hf":
        from huggingface_hub import constants

        # tasks are set offline for their models, not for their shards
        constants.HF_HUB_OFFLINE = False
    options = {"client_kwargs": {"auto_decompress": False}} if _is_http(url) else {}
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as e:
        extra = EXTRAS.get(scheme)
        hint = f"needs a package that is missing: pip install 'recaption[{extra}]'"
        raise bad_value(what, f"{scheme}://…", hint if extra else str(e)) from None
    except Exception as e:  # every library has its own errors for a wrong profile
        if type(e).__name__ in NO_CREDENTIALS:
            raise bad_value(what, url, str(e)) from None
        raise
    return found


def sizes(urls: Sequence[str]) -> dict[str, int]:
    """Sizes of the shards in S3 and on the Hub; others are left out.

    A folder that may not be listed has one shard looked up instead. Raises UserError for a missing
    shard or bucket, missing credentials, and a site that does not answer.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for url in urls:
        if url.startswith(STORES):
            folders[posixpath.dirname(url)].append(url)
    known: dict[str, int] = {}
    for folder, wanted in folders.items():
        files, _ = filesystem(folder, "data.shards")
        files.invalidate_cache()
        there = _listed(files, folder, wanted) if len(wanted) > FEW else None
        if there is None:
            few = wanted if len(wanted) <= FEW else wanted[:1]
            known |= {url: size for url in few if (size := _size(files, url)) is not None}
            continue
        missing = [url for url in wanted if url not in there]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise bad_value("data.shards", missing[0], f"no such shard{more}")
        known |= {url: there[url] for url in wanted}
    return known


def matching(url: str) -> list[str] | None:
    """What matches a glob in S3 or on the Hub, or is in a folder there; None for a file's URL."""
    if not url.startswith(STORES) or (is_tar(url) and not has_magic(url)):
        return None
    files, path = filesystem(url, "data.shards")
    if not has_magic(url):
        if not asked(lambda: files.isdir(path), url):
            return None
        path = f"{path.rstrip('/')}/*"
    scheme = url.split("://")[0]
    return [f"{scheme}://{name}" for name in asked(lambda: files.glob(path), url)]


def asked(question: Callable[[], T], url: str, what: str = "data.shards") -> T:
    """A store's answer; UserError with the reason if there is none."""
    try:
        return question()
    except Exception as e:  # noqa: BLE001 - every remote library has its own errors
        raise bad_value(what, url, reason(url, e) or f"cannot be reached: {said(e)}") from None


def reason(url: str, error: BaseException) -> str:
    """Why a retry cannot help, as a message for the user; '' if it may help."""
    hub = url.startswith("hf://")
    name = type(error).__name__
    if name in NO_CREDENTIALS:
        return (
            "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, PermissionError):
        return f"access denied: {said(error)}"
    if isinstance(error, FileNotFoundError):
        if hub:
            return "no such repository, revision or file, or no access to it (HF_TOKEN)"
        return "no such bucket" if "bucket does not exist" in str(error) else "no such shard"
    return ""


class Remote:
    """A remote file that is read in order, and continued at the same byte if a connection breaks."""

    def __init__(self, url: str, outage_seconds: float | None = None) -> None:
        self.url, self.http = url, _is_http(url)
        self.host = "/".join(url.split("?")[0].split("/")[:3])
        self.outage = OUTAGE_SECONDS if outage_seconds is None else outage_seconds
        try:
            self.filesystem, self.path = filesystem(url, "data.shards")
        except UserError as e:
            raise ShardError(str(e)) from None
        self.position = 0
        self.file: BinaryIO | None = None
        self.ranges = True
        self.identity = self._retried(self._identity)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def size(self) -> int | None:
        """Size of the stored file in bytes; None if the site does not tell."""
        size: int | None = self.identity[0]
        return size

    def read(self, count: int) -> bytes:
        """The next bytes, none at the end; raises ShardError if that is not the file's end."""
        data = self._retried(lambda: self._read(count))
        self.position += len(data)
        if not data:
            self._retried(self._check)
            if self.size is not None and self.position != self.size:
                raise ShardError(f"ended at byte {self.position} of {self.size}")
        return data

    def _read(self, count: int) -> bytes:
        if self.file is None:
            if self.position:
                self._check()
            self.file = self._open()
        data: bytes = self.file.read(count)
        return data

    def _open(self) -> BinaryIO:
        """Open at the position: as one stream the first time, later by a range if the site has ranges."""
        if self.http and (self.position == 0 or not self.ranges):
            file: BinaryIO = self.filesystem.open(self.path, "rb", block_size=0)
            left = self.position
            while left and (skipped := file.read(min(left, CHUNK))):
                left -= len(skipped)
        else:
            file = self.filesystem.open(
                self.path, "rb", cache_type="readahead", block_size=READAHEAD
            )
            file.seek(self.position)
        return file

    def _check(self) -> None:
        if self._identity() != self.identity:
            raise InputChanged("input changed while it was read")

    def _identity(self) -> tuple[Any, ...]:
        self.filesystem.invalidate_cache()
        info = self.filesystem.info(self.path)
        names = VERSION if self.http else STORED
        return info.get("size"), next((info[name] for name in names if info.get(name)), None)

    def _close(self) -> None:
        file, self.file = self.file, None
        if file:
            with contextlib.suppress(Exception):  # it is broken, or not needed any more
                file.close()

    def _retried(self, action: Callable[[], T]) -> T:
        """Repeat an action, after growing pauses, as long as the store may be unreachable."""
        began = time.monotonic()

        def failed(error: Exception, _: int, due: float) -> float:
            self._close()
            self.ranges = self.ranges and "range requests" not in str(error)
            status = _status(error)
            if status:
                _answered.add(self.host)
            final = "" if self.http else reason(self.url, error)
            limit = self._patience(error)
            left = began + limit - time.monotonic()
            if left <= 0 or final or not _may_pass(status):
                what = final or (f"HTTP status {status}" if status else said(error))
                raise ShardError(f"cannot be read from byte {self.position}: {what}") from None
            pause = min(due, left)
            if pause >= SAID_SECONDS > due / 2:  # once, since pauses double
                why = f"HTTP status {status}" if status else type(error).__name__
                text = f"{self.host} cannot be read ({why}); it is asked again for {limit:g} s"
                print(f"recaption: {text}", file=sys.stderr, flush=True)
            return pause

        result = retried(action, failed)
        _answered.add(self.host)
        return result

    def _patience(self, error: Exception) -> float:
        """Seconds that this failure may last: many only if it may be an outage."""
        wrong = isinstance(error, (ValueError, TypeError, LookupError, AttributeError))
        if self.host in _answered and not wrong:
            return self.outage
        return min(STRANGER_SECONDS, self.outage)


_answered: set[str] = set()  # hosts that have answered this process


def _status(error: Exception) -> int | None:
    """The HTTP status code behind an error; None if there was no answer, or none that could be read."""
    from aiohttp.http import HttpProcessingError

    for found in (error, error.__cause__):
        if found and isinstance(found.__cause__, HttpProcessingError):
            return None  # aiohttp itself gives an answer that it cannot parse the status 400
        response = getattr(found, "response", None)
        status = getattr(found, "status", None) or getattr(response, "status_code", None)
        if isinstance(status, int):
            return status
    absent = isinstance(error, FileNotFoundError) and error.__cause__ is None
    return 404 if absent else None  # how fsspec reports a missing page


def _may_pass(status: int | None) -> bool:
    """Whether the error may be temporary."""
    if status is None:
        return True
    return status in BUSY or (status >= 500 and status not in LASTING)


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _listed(files: Any, folder: str, wanted: Sequence[str]) -> dict[str, int] | None:
    """Sizes of everything in a folder by URL; None if it may not be listed."""
    scheme = folder.split("://")[0]
    try:
        entries = files.ls(folder, detail=True, refresh=True)
    except PermissionError:
        return None
    except Exception as e:  # noqa: BLE001 - as in asked
        why = reason(folder, e) or f"cannot be reached: {said(e)}"
        raise bad_value("data.shards", wanted[0], why) from None
    return {f"{scheme}://{e['name']}": e["size"] for e in entries if e["type"] == "file"}


def _size(files: Any, url: str) -> int | None:
    size: int | None = asked(lambda: files.info(url), url)["size"]
    return size
