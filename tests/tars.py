"""Tars made byte by byte, odd ones too."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

Member = tuple[str, bytes]


def tiny_png(seed: int, side: int = 8) -> bytes:
    """A valid picture that is unlike the one of any other seed."""
    rng = random.Random(seed)
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side)).save(file, "PNG")
    return file.getvalue()


def members_of(key: str, number: int) -> list[Member]:
    """A plain sample: picture, caption, fields."""
    return [
        (f"{key}.png", tiny_png(number)),
        (f"{key}.txt", f"caption {number}".encode()),
        (f"{key}.json", b'{"number": %d}' % number),
    ]


def plain_members(count: int, seed: int = 0) -> list[Member]:
    return [m for i in range(count) for m in members_of(f"k{i:05d}", seed * 100_000 + i)]


def tar_bytes(members: Iterable[Member], form: int = tarfile.USTAR_FORMAT, **fields: Any) -> bytes:
    """A whole tar of plain files; `fields` are set on every TarInfo."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def entry(
    name: str,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    form: int = tarfile.PAX_FORMAT,
    **fields: Any,
) -> bytes:
    """One header with its content, padded."""
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for field, value in fields.items():
        setattr(info, field, value)
    head = info.tobuf(form, "utf-8", "surrogateescape")
    return head + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def ended(*entries: bytes) -> bytes:
    """Entries and the two zero blocks of a whole tar."""
    return b"".join(entries) + bytes(2 * tarfile.BLOCKSIZE)


def write_tar(path: Path, members: Iterable[Member] | Mapping[str, bytes]) -> Path:
    items = members.items() if isinstance(members, Mapping) else members
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(items))
    return path
