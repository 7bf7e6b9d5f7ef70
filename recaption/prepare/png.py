"""What a PNG carries beside its picture, within bounds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 1 << 20  # bytes of one text or profile, unpacked, which is Pillow's own bound
ROOM = 16 << 20  # bytes of all that are unpacked, kept or not


def without_large_texts(content: bytes) -> bytes:
    """The same picture; texts and profiles over the bounds, which Pillow refuses, are left out."""
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
    """Kind, start and end of each chunk that is whole."""
    start = len(SIGNATURE)
    while start + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        if end > len(content):
            return
        yield kind, start, end
        start = end


def _size(kind: bytes, data: bytes) -> int:
    """Bytes that a chunk unpacks to, more than LARGEST at most by one."""
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
    """Behind a name, its NUL and the number of the method."""
    return data.partition(b"\0")[2][1:]


def _international(data: bytes) -> bytes | None:
    """Behind a name, a flag, the method, a language and a translated name, if it is packed."""
    rest = data.partition(b"\0")[2]
    return rest[2:].split(b"\0", 2)[-1] if rest[:1] not in (b"", b"\0") else None


UNPACKED = {
    b"tEXt": lambda data: None,
    b"zTXt": _after_name,
    b"iCCP": _after_name,
    b"iTXt": _international,
}
