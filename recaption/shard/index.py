"""A strict index of a shard: the place of every member, and proof that the tar is whole.

Headers are parsed by `tarfile`, but it ends silently at a damaged header or where a file was cut, so
every block up to the end of the file has to be accounted for here. A whole tar ends in
at least two zero blocks and nothing but zeros (POSIX.1-2017, pax, "ustar Interchange Format").

With data.damaged=salvage, a tar is read up to the damage. Samples that may not be intact keep their
place and are rejected for a defect: the last one before the damage, and those whose key occurred
before, or whose members are not adjacent or not plain files. With data.order=any, members behind the
damage may belong to any sample, so none is certainly intact.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from recaption.errors import ShardError
from recaption.shard.samples import STRICT, Layout, Sample, grouping

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER = 1 << 20  # bytes of one extended header; a hostile one would fill the memory
MAX_MEMBERS = 2_000_000
MALFORMED = (
    tarfile.HeaderError,
    ValueError,
    OverflowError,
    LookupError,
    struct.error,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class Index:
    """A shard's samples in order; `digest` covers every member's name, place and size."""

    samples: list[Sample]
    size: int
    digest: str
    skipped: int  # members outside any sample: folders, names without a key or extension
    damaged: str = ""  # where and why a salvaged shard could not be read on


def index_shard(file: BinaryIO, layout: Layout = STRICT, *, salvage: bool = False) -> Index:
    """Index an uncompressed tar.

    Raises ShardError, with the byte offset, for anything that does not read as one whole tar of
    distinct samples in this layout; with `salvage` only where no sample is certainly intact.
    """
    size = os.fstat(file.fileno()).st_size
    digest = hashlib.sha256(str(size).encode())
    found = grouping(layout, salvage=salvage)
    damaged = ""
    try:
        for info in _members(file, size):
            place = found.add(info)
            digest.update(f"\n{info.name}\0{place.offset}\0{place.size}".encode(errors="replace"))
    except _Damage as e:
        damaged = str(e)
        if not salvage:
            raise ShardError(damaged) from None
        digest.update(f"\n\0{damaged}".encode(errors="replace"))
        found.cut(f"may be cut: {damaged}")
    samples = found.close()
    if damaged and all(sample.defect for sample in samples):
        raise ShardError(f"{damaged}; no sample before it is certainly intact")
    return Index(samples, size, digest.hexdigest(), found.skipped, damaged)


def first_samples(file: BinaryIO, layout: Layout, count: int) -> list[Sample]:
    """The first samples of a tar, without reading more of it than they need."""
    found = grouping(layout, salvage=True)
    for info in _members(file, os.fstat(file.fileno()).st_size):
        found.add(info)
        if not layout.scattered and len(found.samples) == count:
            return found.samples
    return found.close()[:count]


class _Damage(ShardError):
    """The tar cannot be read on from here."""


def _members(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    if size == 0:
        raise _Damage("empty file")
    archive = tarfile.TarFile.__new__(tarfile.TarFile)
    _prepare(archive, file)
    for _ in range(MAX_MEMBERS):
        start = archive.offset
        file.seek(start)
        try:
            info = tarfile.TarInfo.fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            _check_end(file, start, size)
            return
        except MALFORMED as e:
            raise _Damage(f"not a whole tar at byte {start}: {e}") from None
        if info.size < 0 or archive.offset <= start:
            raise _Damage(f"not a whole tar at byte {start}: impossible size {info.size}")
        if archive.offset > size:
            raise _Damage(f"cut inside member {info.name!a} at byte {info.offset_data}")
        yield info
    raise ShardError(f"more than {MAX_MEMBERS} members")


class _Headers:
    """The file that TarInfo.fromtarfile reads: it returns at most a header's bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.file = file.seek, file.tell, file

    def read(self, count: int) -> bytes:
        if count > MAX_HEADER:
            raise tarfile.InvalidHeaderError(f"header of {count} bytes")  # type: ignore[attr-defined]
        return self.file.read(count)


def _prepare(archive: tarfile.TarFile, file: BinaryIO) -> None:
    """The few attributes that TarInfo.fromtarfile reads, without TarFile's eager first read."""
    archive.fileobj = _Headers(file)  # type: ignore[assignment]
    archive.encoding = "utf-8"
    archive.errors = "surrogateescape"
    archive.pax_headers = {}
    archive.offset = 0
    archive.tarinfo = tarfile.TarInfo


def _check_end(file: BinaryIO, start: int, size: int) -> None:
    if size - start < 2 * BLOCK:
        raise _Damage(f"not a whole tar: ends at byte {size} without its end blocks")
    file.seek(start)
    place = start
    while chunk := file.read(1 << 20):
        if rest := chunk.lstrip(b"\0"):
            place += len(chunk) - len(rest)
            raise _Damage(f"not a whole tar: data after its end, at byte {place}")
        place += len(chunk)
