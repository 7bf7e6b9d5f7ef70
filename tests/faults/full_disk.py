"""Tasks on file systems with too little room, in a mount namespace of their own.

Run as `unshare --mount (or --map-root-user --mount) python full_disk.py FOLDER`: it mounts a small
tmpfs in FOLDER, starts tasks with ever more room left, and checks what a full disk leaves behind.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trials
from helpers import markers

from recaption.errors import ShardError
from recaption.run.paths import RunPaths
from recaption.shard.index import index_shard

PAGE = 4096
SIZE = 8 << 20
STEP = 4  # pages
INODES = 14


def mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)


@contextmanager
def room(disk: Path, count: int) -> Iterator[None]:
    """Only `count` bytes left."""
    ballast = disk / "ballast"
    stat = os.statvfs(disk)
    free = stat.f_bavail * stat.f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(PAGE, free - count))
    yield
    ballast.unlink()


@contextmanager
def inodes(disk: Path, count: int) -> Iterator[None]:
    """Only `count` more files."""
    stat = os.statvfs(disk)
    used = stat.f_files - stat.f_ffree
    remount = ["mount", "-o", f"remount,nr_inodes={used + count}", str(disk)]
    subprocess.run(remount, check=True)
    yield
    subprocess.run([*remount[:2], "remount,nr_inodes=100000", str(disk)], check=True)


def attempt(run: Path, folder: Path) -> int:
    log = folder / "tasks.log"
    log.write_bytes(b"")
    return trials.Forked(run, 0, folder, "").wait()


def check_partial(run: Path) -> None:
    """Whatever is visible is whole, and the task has removed what it could not finish."""
    paths = RunPaths(run)
    assert not list(paths.temporaries.iterdir()), list(paths.temporaries.iterdir())
    for name, marker in markers(run).items():
        assert trials.sha256(run / name) == marker["tar"]["sha256"], name
    for tar in run.glob("*.tar"):
        with tar.open("rb") as file:
            try:
                assert len(index_shard(file).samples) == trials.SAMPLES
            except ShardError as e:
                raise AssertionError(f"{tar} is partial") from e


def main(folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()
    template = trials.templates(folder)[0]
    trials.warm()
    mount(disk, f"size={SIZE}")
    stages: dict[str, int] = {}
    cases = [(room, pages * PAGE) for pages in range(0, 120, STEP)]
    cases += [(inodes, count) for count in range(INODES)]
    for limit, count in cases:
        run = disk / "run"
        trials.copy_frozen(template.run, run)
        with limit(disk, count):
            code = attempt(run, folder)
            said = (folder / "tasks.log").read_text()
            check_partial(run)
        if code == 0:
            stages["finished"] = stages.get("finished", 0) + 1
        else:
            found = re.search(r"DiskFull: no space left for \S*/(\S+): No space left", said)
            assert found, said[-3000:]
            stage = re.sub(r"[0-9a-f@-]{8,}.*(?=\.)|^\d+", "N", found[1])
            stages[stage] = stages.get(stage, 0) + 1
            assert attempt(run, folder) == 0, (folder / "tasks.log").read_text()[-3000:]
        trials.check_run(run, template)
        shutil.rmtree(run)
    print(json.dumps(stages))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
