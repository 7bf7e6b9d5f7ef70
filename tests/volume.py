"""A real network file system for tests: a thin handle on slurm/volume-up.sh and volume-down.sh."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

from brought_up import BroughtUp, brought_up

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000


class Volume(BroughtUp):
    """A mounted volume: `shared` as this machine sees it, and as nodes 1 to N see it."""

    scripts = ("volume-up.sh", "volume-down.sh")

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        super().__init__(directory, {**os.environ, **settings, "VOLUME_DIR": str(directory)})
        self.shared = directory / "shared"

    @classmethod
    def up(cls, nodes: int) -> Volume:
        """Raises Unavailable where no network file system can be mounted."""

        def volume(directory: Path, port: int) -> Volume:
            return cls(directory, {"VOLUME_PORT": str(port), "VOLUME_NODES": str(nodes)})

        return brought_up(volume, "rv-")

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
