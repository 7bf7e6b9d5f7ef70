"""Checks whether files can be published in the output directory, and whether it has room."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from recaption.doctor.check import Check, fail, gib, ok, tried, warn
from recaption.run.publish import try_out
from recaption.run.record import InputShard

PREFIX = ".recaption-doctor-"
LITTLE_SPACE = 10 << 30
FILES_PER_SHARD = 4
ELSEWHERE = "put output.dir on another file system"


def nearest(path: Path) -> Path:
    """`path`, or the closest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


@contextlib.contextmanager
def probing(folder: Path) -> Iterator[Path]:
    """A folder of the doctor's own inside `folder`, removed at the end."""
    probe = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    try:
        yield probe
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def check_folder(folder: Path, shards: Sequence[InputShard], *, full: bool) -> list[Check]:
    """Check permission, links, renames, fsync and room; `full` shards are as large as their input."""
    try:
        with probing(folder) as probe:
            found = [ok("output folder", f"{folder} ({_kind(folder)}) can be written")]
            found += tried("hard links", lambda: _semantics(probe))
    except OSError as e:
        advice = "see its permissions and its quota, or choose another output.dir"
        return [fail("output folder", f"{folder}: cannot be written: {e.strerror}", advice)]
    return found + tried("space", lambda: _room(folder, shards, full=full))


def _semantics(probe: Path) -> Iterator[Check]:
    seen = try_out(probe)
    if not seen.link:
        yield ok("hard links", "one name is linked once")
    elif not seen.rename:
        text = f"{seen.link}; exclusive renames are used instead"
        yield warn("hard links", text, f"slower on some file systems; if it matters, {ELSEWHERE}")
    else:
        yield fail("hard links", f"{seen.link}, and no exclusive renames either", ELSEWHERE)
    if not seen.rename:
        yield ok("exclusive renames", "renameat2 does not replace")
    elif not seen.link:
        yield ok("exclusive renames", f"none ({seen.rename}); hard links do")
    for name, problem in (("fsync", seen.sync), ("fsync of folders", seen.sync_folder)):
        if problem:
            yield fail(name, problem, f"what is published would not be safe; {ELSEWHERE}")
        else:
            yield ok(name, "works")


def _room(folder: Path, shards: Sequence[InputShard], *, full: bool) -> Iterator[Check]:
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    known = sum(shard.size or 0 for shard in shards)
    text = f"{gib(free)} free"
    advice = "free some, or another output.dir (quotas are not looked at)"
    if full and known > free:
        yield fail("space", f"{text}, {gib(known)} needed for as large shards as the input", advice)
    elif free < LITTLE_SPACE:
        yield warn("space", text, advice)
    else:
        needed = f", {gib(known)} needed" if full and known else ""
        yield ok("space", f"{text}{needed}")
    need = FILES_PER_SHARD * len(shards)
    if not stat.f_files:
        yield ok("inodes", "no limit")
    elif stat.f_favail < need:
        yield fail("inodes", f"{stat.f_favail} free, about {need} needed", advice)
    else:
        yield ok("inodes", f"{stat.f_favail} free")


def _kind(folder: Path) -> str:
    """The type of the file system that holds a folder, such as nfs4 or ext4."""
    real = folder.resolve()
    best, kind = 0, "unknown file system"
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, mount, name, *_ = line.split()
            place = Path(mount.replace("\\040", " "))
            if place in (real, *real.parents) and len(place.parts) >= best:
                best, kind = len(place.parts), name
    return kind
