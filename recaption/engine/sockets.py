"""Checks that the temporary folder's path is short enough for a task's Unix sockets."""

from __future__ import annotations

import os
import tempfile

LONGEST = 107  # bytes of a socket's path
NAME = 37  # bytes of vLLM's longest name: a slash and a UUID


def too_long() -> str:
    """Why sockets cannot be made in the temporary folder; '' if they can."""
    folder = tempfile.gettempdir()
    length, room = len(os.fsencode(folder)), LONGEST - NAME
    if length <= room:
        return ""
    return (
        f"TMPDIR={folder}: a task's sockets lie there, and a path of {length} bytes is too long "
        f"for them ({room} at most): set a shorter one"
    )
