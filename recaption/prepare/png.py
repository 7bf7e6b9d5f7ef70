"""Bounds on the texts and profiles in a PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 1 << 20  # bytes of one unpacked text or profile; Pillow's own limit
ROOM = 16 << 20  # bytes of all texts and profiles that are unpacked, kept or not


def without_large_texts(content: bytes) -> bytes:
    """The same picture without texts and profiles over the bounds, which Pillow refuses."""
    if not content.startswith(SIGNATURE):
        return content
    parts, begun, room = [], 0, ROOM
    for kind, start, end in _chunks(content):
        if kind in UNPACKED:
            size = _size(kind, content[start + 8 : end - 4]) if room > 0 else ROOM
            room -= size
            if size > LARGEST:
                parts.append(content[begun:start])
                begun = end
    return b"".join([*parts, content[begun:]]) if parts else content


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each complete chunk."""
    start = len(SIGNATURE)
    while start + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        if end > len(content):
            return
        yield kind, start, end
        start = end


def _size(kind: bytes, data: bytes) -> int:
    """Bytes that a chunk unpacks to; LARGEST + 1 stands for any larger size."""
    packed = UNPACKED[kind](data)
    if packed is None:
        return len(data)
    unpacker = zlib.decompressobj()
    try:
        size = len(unpacker.decompress(packed, LARGEST))
    except zlib.error:
        return len(data)
    return size + 1 if unpacker.unconsumed_tail else size


def _after_name(data: bytes) -> bytes | None:
    """The data of a chunk after a name, its NUL and the compression method."""
    return data.partition(b"\0")[2][1:]


def _international(data: bytes) -> bytes | None:
    """The compressed data of an iTXt chunk, after its header fields; none if not compressed."""
    rest = data.partition(b"\0")[2]
    return rest[2:].split(b"\0", 2)[-1] if rest[:1] not in (b"", b"\0") else None


UNPACKED = {
    b"tEXt": lambda data: None,
    b"zTXt": _after_name,
    b"iCCP": _after_name,
    b"iTXt": _international,
}
