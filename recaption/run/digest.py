"""The hash of a file, as recorded in markers and run.json."""

from __future__ import annotations

import hashlib
from pathlib import Path

from recaption.run import shared


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; OSError if it cannot be read."""

    def hashed() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return shared.patiently(hashed)
