"""A strict index of a shard: every member's place, and proof that the tar is whole.

The header walk is tarfile's, without its leniency: `tarfile` ends quietly at a damaged header or
a cut, so here every block up to the end of the file has to be accounted for. A whole tar ends in
at least two zero blocks and nothing but zeros (POSIX.1-2017, pax, "ustar Interchange Format").

With data.damaged=salvage, a damaged tar is read up to its damage and a sample that is not certainly
intact keeps its place with a defect, for which it is rejected: the last one before the damage, one
whose key came before, one whose members are not adjacent or not plain files.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from recaption.errors import ShardError

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER = 1 << 20  # bytes of one extended header; a hostile one would fill the memory
MAX_MEMBERS = 2_000_000
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
MALFORMED = (
    tarfile.HeaderError,
    ValueError,
    OverflowError,
    LookupError,
    struct.error,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a sample: `extension` as written, without the dot; its bytes' place."""

    extension: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The members under one key, in the shard's order; none where it has a `defect`."""

    key: str
    members: tuple[Member, ...]
    defect: str = ""  # why it is rejected unread, in a salvaged shard

    def find(self, *extensions: str) -> Member | None:
        """The member with the first of `extensions` that exists, whatever its case."""
        for extension in extensions:
            for member in self.members:
                if member.extension.lower() == extension:
                    return member
        return None


@dataclass(frozen=True)
class Index:
    """A shard's samples in order; `digest` covers every member's name, place and size."""

    samples: list[Sample]
    size: int
    digest: str
    skipped: int  # members outside any sample: folders, names without a key or extension
    damaged: str = ""  # where and why a salvaged shard could not be read on


def index_shard(file: BinaryIO, *, salvage: bool = False) -> Index:
    """Index an uncompressed tar.

    Raises ShardError, with the byte offset, for anything that does not read as one whole tar of
    adjacent, distinct samples; with `salvage` only where no sample is certainly intact.
    """
    size = os.fstat(file.fileno()).st_size
    digest = hashlib.sha256(str(size).encode())
    found = _Samples(salvage)
    damaged = ""
    try:
        for info in _members(file, size):
            digest.update(
                f"\n{info.name}\0{info.offset_data}\0{info.size}".encode(errors="replace")
            )
            found.add(info)
    except _Damage as e:
        damaged = str(e)
        if not salvage:
            raise ShardError(damaged) from None
        digest.update(f"\n\0{damaged}".encode(errors="replace"))
        found.doubt(f"may be cut: {damaged}")
    found.close()
    if damaged and all(sample.defect for sample in found.samples):
        raise ShardError(f"{damaged}; no sample before it is certainly intact")
    return Index(found.samples, size, digest.hexdigest(), found.skipped, damaged)


class _Damage(ShardError):
    """The tar cannot be read on from here."""


class _Samples:
    """Groups members into samples; what is wrong with one raises, or is its defect in salvage."""

    def __init__(self, salvage: bool) -> None:
        self.salvage = salvage
        self.samples: list[Sample] = []
        self.places: dict[str, int] = {}
        self.skipped = 0
        self.key = ""
        self.members: list[Member] = []
        self.defect = ""

    def add(self, info: tarfile.TarInfo) -> None:
        if info.isdir():
            self.skipped += 1
            return
        name = info.name if info.name.isprintable() else SURROGATE.sub(_escaped, info.name)
        match = KEY.fullmatch(name)
        if match is None:
            if problem := _problem(info):
                self.doubt(problem)
            self.skipped += 1
            return
        key, extension = match[1], match[2]
        if key != self.key:
            self.close()
            self.key = key
            if key in self.places:
                self.doubt(f"key {key!r} appears twice (again at byte {info.offset})")
        if problem := _problem(info):
            self.doubt(problem)
        if any(m.extension.lower() == extension.lower() for m in self.members):
            self.doubt(f"member {name!r} appears twice (again at byte {info.offset})")
        self.members.append(Member(extension, info.offset_data, info.size))

    def doubt(self, problem: str) -> None:
        """The sample being read is not certainly intact."""
        if not self.salvage:
            raise ShardError(problem)
        self.defect = self.defect or problem

    def close(self) -> None:
        """The sample being read has no further members."""
        if self.members:
            if self.key in self.places:
                self._divide(self.places[self.key])
                self.key += f"@{self.members[0].offset}"  # keys tell the rows of a shard apart
            self.places[self.key] = len(self.samples)
            members = () if self.defect else tuple(self.members)
            self.samples.append(Sample(self.key, members, self.defect))
        self.key, self.members, self.defect = "", [], ""

    def _divide(self, first: int) -> None:
        """A later piece that repeats no member says that the first one was not the whole sample."""
        earlier = self.samples[first]
        extensions = {m.extension.lower() for m in earlier.members}
        if extensions.isdisjoint(m.extension.lower() for m in self.members):
            defect = earlier.defect or f"members of {self.key!r} are not adjacent"
            self.samples[first] = Sample(self.key, (), defect)


def _problem(info: tarfile.TarInfo) -> str:
    if info.type in REFUSED or info.sparse is not None:
        what = REFUSED.get(info.type, "a sparse file")
        return f"member {info.name!a} is {what}; only plain files are read"
    if not info.isreg():
        return f"member {info.name!a} has the unknown type {info.type!r}"
    if not info.name.isprintable() and SURROGATE.search(info.name):
        return f"member {info.name!a} has a name that is not UTF-8"
    if "\0" in info.name:
        return f"member {info.name!a} has a zero byte in its name"
    return ""


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]) & 0xFF:02x}"


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
    """What TarInfo.fromtarfile reads from: a file that gives out no more than a header's bytes."""

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
