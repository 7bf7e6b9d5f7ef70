"""A strict index of a shard: every member's place, and proof that the tar is whole.

The header walk is tarfile's, without its leniency: `tarfile` ends quietly at a damaged header or
a cut, so here every block up to the end of the file has to be accounted for. A whole tar ends in
at least two zero blocks and nothing but zeros (POSIX.1-2017, pax, "ustar Interchange Format").
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from dataclasses import dataclass
from typing import BinaryIO

from recaption.errors import ShardError

BLOCK = tarfile.BLOCKSIZE
KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
SURROGATE = re.compile("[\ud800-\udfff]")
REFUSED = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a sample: `extension` as written, without the dot; its bytes' place."""

    extension: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The members under one key, in the shard's order."""

    key: str
    members: tuple[Member, ...]

    def find(self, *extensions: str) -> Member | None:
        """The member with the first of `extensions` that exists, whatever its case."""
        for extension in extensions:
            for member in self.members:
                if member.extension.lower() == extension:
                    return member
        return None


@dataclass(frozen=True)
class Index:
    """A whole shard's samples in order; `digest` covers every member's name, place and size."""

    samples: list[Sample]
    size: int
    digest: str
    skipped: int  # members outside any sample: folders, names without a key or extension


def index_shard(file: BinaryIO) -> Index:
    """Index an uncompressed tar.

    Raises ShardError, with the byte offset, for anything that does not read as one whole tar of
    adjacent, distinct samples.
    """
    size = os.fstat(file.fileno()).st_size
    samples: list[Sample] = []
    seen: set[str] = set()
    digest = hashlib.sha256(str(size).encode())
    skipped = 0
    key, members = "", list[Member]()
    for info in _members(file, size):
        digest.update(f"\n{info.name}\0{info.offset_data}\0{info.size}".encode(errors="replace"))
        if not info.name.isprintable() and SURROGATE.search(info.name):
            raise ShardError(f"member {info.name!a} has a name that is not UTF-8")
        match = KEY.fullmatch(info.name) if info.isreg() else None
        if match is None:
            skipped += 1
            continue
        if match[1] != key:
            if members:
                samples.append(Sample(key, tuple(members)))
            key, members = match[1], []
            if key in seen:
                raise ShardError(f"key {key!r} appears twice (again at byte {info.offset})")
            seen.add(key)
        if any(m.extension.lower() == match[2].lower() for m in members):
            raise ShardError(f"member {info.name!r} appears twice (again at byte {info.offset})")
        members.append(Member(match[2], info.offset_data, info.size))
    if members:
        samples.append(Sample(key, tuple(members)))
    return Index(samples, size, digest.hexdigest(), skipped)


def _members(file: BinaryIO, size: int) -> list[tarfile.TarInfo]:
    if size == 0:
        raise ShardError("empty file")
    archive = tarfile.TarFile.__new__(tarfile.TarFile)
    _prepare(archive, file)
    members = []
    while True:
        start = archive.offset
        file.seek(start)
        try:
            info = tarfile.TarInfo.fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            break
        except (tarfile.HeaderError, ValueError, OverflowError) as e:
            raise ShardError(f"not a whole tar at byte {start}: {e}") from None
        if info.type in REFUSED or info.sparse is not None:
            what = REFUSED.get(info.type, "a sparse file")
            raise ShardError(f"member {info.name!r} is {what}; only plain files are read")
        if not (info.isreg() or info.isdir()):
            raise ShardError(f"member {info.name!r} has the unknown type {info.type!r}")
        end = info.offset_data + info.size
        if info.size < 0 or end > size or archive.offset <= start:
            raise ShardError(f"cut inside member {info.name!r} at byte {info.offset_data}")
        members.append(info)
    _check_end(file, start, size)
    return members


def _prepare(archive: tarfile.TarFile, file: BinaryIO) -> None:
    """The few attributes that TarInfo.fromtarfile reads, without TarFile's eager first read."""
    archive.fileobj = file
    archive.encoding = "utf-8"
    archive.errors = "surrogateescape"
    archive.pax_headers = {}
    archive.offset = 0
    archive.tarinfo = tarfile.TarInfo


def _check_end(file: BinaryIO, start: int, size: int) -> None:
    if size - start < 2 * BLOCK:
        raise ShardError(f"not a whole tar: ends at byte {size} without its end blocks")
    file.seek(start)
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\0"):
            raise ShardError(f"not a whole tar: damaged at or after byte {start}")
