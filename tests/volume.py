"""A real network file system for tests: a thin handle on slurm/volume-up.sh and volume-down.sh."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

SCRIPTS = Path(__file__).resolve().parents[1] / "slurm"
PORT_TAKEN, UNAVAILABLE = 76, 77  # exit codes of volume-up.sh
TRIES = 8
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000


class VolumeUnavailable(RuntimeError):
    """No network file system can be mounted on this machine; the message says why."""


class Volume:
    """A mounted volume: `shared` as this machine sees it, and as nodes 1 to N see it."""

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        self.directory, self.settings = directory, settings
        self.shared = directory / "shared"

    @classmethod
    def up(cls, nodes: int) -> Volume:
        said = ""
        for _ in range(TRIES):
            directory = Path(tempfile.mkdtemp(prefix="rv-", dir="/tmp"))
            port = str(random.randrange(15001, 32000, 100))
            volume = cls(directory, {"VOLUME_PORT": port, "VOLUME_NODES": str(nodes)})
            done = volume._script("volume-up.sh")
            if done.returncode == 0:
                return volume
            said = (done.stderr.strip() or "volume-up.sh said nothing").splitlines()[-1]
            volume._script("volume-down.sh", "--wipe")
            shutil.rmtree(directory, ignore_errors=True)
            if done.returncode == UNAVAILABLE:
                raise VolumeUnavailable(said)
            if done.returncode != PORT_TAKEN:
                break
        raise RuntimeError(said)

    def down(self) -> None:
        done = self._script("volume-down.sh", "--wipe")
        if done.returncode != 0:
            raise RuntimeError(f"volume-down.sh: {done.stderr.strip()}")

    def __enter__(self) -> Volume:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def folder(self, name: str) -> Path:
        """A new folder that all nodes see."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.shared))

    def become(self, node: int) -> None:
        """From now on this process, and what it starts, sees `shared` as that node does."""
        libc = ctypes.CDLL(None, use_errno=True)
        view, shared = os.fsencode(self.directory / f"node{node}"), os.fsencode(self.shared)
        if (
            libc.unshare(CLONE_NEWNS)
            or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
            or libc.mount(view, shared, None, MS_BIND, None)
        ):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPTS / name), *arguments],
            env={**os.environ, **self.settings, "VOLUME_DIR": str(self.directory)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
