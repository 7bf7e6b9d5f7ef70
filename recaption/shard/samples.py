"""Samples, and how the members of a tar are grouped into them."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from recaption.errors import ShardError

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
FEW = 16  # members of a sample up to which they are compared one by one


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a sample: its extension as written, without the dot, and where its bytes are."""

    extension: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The members under one key, in the shard's order; a sample with a `defect` has none."""

    key: str
    members: tuple[Member, ...]
    defect: str = ""  # why it is rejected without being read, in a salvaged shard

    def find(self, *extensions: str) -> Member | None:
        """The member with the first of `extensions` that exists, whatever its case."""
        for extension in extensions:
            for member in self.members:
                if member.extension.lower() == extension:
                    return member
        return None


@dataclass(frozen=True)
class Layout:
    """What a run allows in its inputs that published shards do not have."""

    scattered: bool = False  # members with one key belong together wherever they stand
    links: bool = False  # a hard link to an earlier member is that member


STRICT = Layout()


def grouping(layout: Layout, *, salvage: bool) -> Adjacent:
    """The object that groups the members of a tar in this layout."""
    return (Scattered if layout.scattered else Adjacent)(salvage, layout.links)


class Adjacent:
    """Members of a sample stand together. Violations raise, or with salvage are a sample's defect."""

    def __init__(self, salvage: bool, links: bool) -> None:
        self.salvage, self.links = salvage, links
        self.samples: list[Sample] = []
        self.places: dict[str, int] = {}
        self.skipped = 0
        self.alone: dict[str, Member] = {}  # files outside any sample
        self.key = ""
        self.members: list[Member] = []
        self.many: dict[str, set[str]] = {}  # extensions of samples with many members
        self.defects: dict[str, str] = {}  # of samples, by key
        self.extensions: dict[
            str, str
        ] = {}  # one string object each, to save memory with millions of members

    def add(self, info: tarfile.TarInfo) -> Member:
        """Take the next member; returns the place of its bytes."""
        place = Member("", info.offset_data, info.size)
        if info.isdir():
            self.skipped += 1
            return place
        name = info.name if info.name.isprintable() else SURROGATE.sub(_escaped, info.name)
        problem = _problem(info, self.links)
        if info.islnk() and self.links:
            target = self._earlier(info.linkname)
            place = target or place
            if target is None:
                problem = f"member {info.name!a} is a hard link to no earlier member"
        match = KEY.fullmatch(name)
        if match is None:
            self._skip(name, place, problem)
            return place
        key, extension = match[1], self.extensions.setdefault(match[2], match[2])
        place = Member(extension, place.offset, place.size)
        self._begin(key, info)
        if problem:
            self.doubt(problem)
        if self._has(extension.lower()):
            self.doubt(f"member {name!r} appears twice (again at byte {info.offset})")
        self.members.append(place)
        return place

    def doubt(self, problem: str) -> None:
        """Note that the sample being read may not be intact."""
        if not self.salvage:
            raise ShardError(problem)
        self.defects.setdefault(self.key, problem)

    def cut(self, problem: str) -> None:
        """Note that the tar cannot be read any further."""
        self.doubt(problem)

    def close(self) -> list[Sample]:
        """All samples, after the last member."""
        self._end()
        return self.samples

    def _begin(self, key: str, info: tarfile.TarInfo) -> None:
        """Begin or go on with the sample of this key."""
        if key != self.key:
            self._end()
            self.key = key
            if key in self.places:
                self.doubt(f"key {key!r} appears twice (again at byte {info.offset})")

    def _end(self) -> None:
        """End the sample being read."""
        key, members, defect = self.key, self.members, self.defects.pop(self.key, "")
        if members:
            if key in self.places:
                self._divide(self.places[key])
                key += f"@{members[0].offset}"  # keys tell the rows of a shard apart
            self.places[key] = len(self.samples)
            self.samples.append(Sample(key, () if defect else tuple(members), defect))
        self.key, self.members = "", []
        self.many.clear()

    def _divide(self, first: int) -> None:
        """Handle a key that comes back; if it repeats no member, the first part was not a whole sample."""
        earlier = self.samples[first]
        extensions = {m.extension.lower() for m in earlier.members}
        if extensions.isdisjoint(m.extension.lower() for m in self.members):
            defect = earlier.defect or f"members of {self.key!r} are not adjacent"
            self.samples[first] = Sample(self.key, (), defect)

    def _skip(self, name: str, place: Member, problem: str) -> None:
        """Pass over a member that belongs to no sample."""
        self.skipped += 1
        if problem:
            self.doubt(problem)
        else:
            self.alone[name] = place

    def _has(self, extension: str) -> bool:
        """Whether the sample being read has a member of this extension, whatever its case."""
        if len(self.members) < FEW:
            return any(m.extension.lower() == extension for m in self.members)
        known = self.many.setdefault(self.key, {m.extension.lower() for m in self.members[:FEW]})
        found = extension in known
        known.add(extension)
        return found

    def _earlier(self, name: str) -> Member | None:
        """The earlier member with this full name, if there is a sound one."""
        match = KEY.fullmatch(name)
        if match is None:
            return self.alone.get(name)
        members = () if match[1] in self.defects else self._members_of(match[1])
        return next((m for m in members if m.extension == match[2]), None)

    def _members_of(self, key: str) -> Sequence[Member]:
        if key == self.key:
            return self.members
        return self.samples[self.places[key]].members if key in self.places else ()


class Scattered(Adjacent):
    """Members of a sample may stand anywhere in the tar."""

    def __init__(self, salvage: bool, links: bool) -> None:
        super().__init__(salvage, links)
        self.pieces: dict[str, list[Member]] = {}
        self.cut_off = ""

    def cut(self, problem: str) -> None:
        self.cut_off = problem

    def close(self) -> list[Sample]:
        for key, members in self.pieces.items():
            defect = self.defects.get(key) or self.cut_off
            self.samples.append(Sample(key, () if defect else tuple(members), defect))
            members.clear()  # frees memory, since there may be millions
        return self.samples

    def _begin(self, key: str, info: tarfile.TarInfo) -> None:
        self.key, self.members = key, self.pieces.setdefault(key, [])

    def _skip(self, name: str, place: Member, problem: str) -> None:
        self.key = ""  # so that no sample is doubted for a member that belongs to none
        super()._skip(name, place, problem)

    def _members_of(self, key: str) -> Sequence[Member]:
        return self.pieces.get(key, ())


def _problem(info: tarfile.TarInfo, links: bool) -> str:
    linked = links and info.islnk()
    if (info.type in REFUSED and not linked) or info.sparse is not None:
        what = REFUSED.get(info.type, "a sparse file")
        return f"member {info.name!a} is {what}; only plain files are read"
    if not info.isreg() and not linked:
        return f"member {info.name!a} has the unknown type {info.type!r}"
    if not info.name.isprintable() and SURROGATE.search(info.name):
        return f"member {info.name!a} has a name that is not UTF-8"
    if "\0" in info.name:
        return f"member {info.name!a} has a zero byte in its name"
    return ""


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]) & 0xFF:02x}"
