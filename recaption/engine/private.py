"""Folders to which only this user may write, since what lies in them is run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

OUTER = "RECAPTION_TMPDIR"  # the node's temporary folder, for the processes of an engine


def node_folder() -> Path:
    """The temporary folder of the node, not that of an engine."""
    return Path(os.environ.get(OUTER) or tempfile.gettempdir())


def private_folder() -> Path:
    """This user's folder of compiled code on this node. Raises OSError if others may write there."""
    folder = node_folder() / f"recaption-compiled-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    check_private(folder, links=False)
    return folder


def check_private(folder: Path, *, links: bool = True) -> None:
    """Raise PermissionError unless the folder is this user's and others may not write there."""
    there = folder.stat(follow_symlinks=links)  # of a link, anybody's mode
    if there.st_uid != os.geteuid() or there.st_mode & 0o022:
        raise PermissionError(f"others may write to {folder}")
