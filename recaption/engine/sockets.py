"""A task's Unix sockets lie in the temporary folder, and their paths have a bound."""

from __future__ import annotations

import os
import tempfile

LONGEST = 107  # bytes of a socket's path
NAME = 37  # vLLM's: a slash and a UUID; those of other processes are shorter


def too_long() -> str:
    """Why sockets cannot be made in the temporary folder; empty where they can."""
    folder = tempfile.gettempdir()
    length, room = len(os.fsencode(folder)), LONGEST - NAME
    if length <= room:
        return ""
    return (
        f"TMPDIR={folder}: a task's sockets lie there, and a path of {length} bytes is too long "
        f"for them ({room} at most): set a shorter one"
    )
