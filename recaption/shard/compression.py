"""Decompresses streams strictly: a truncated or damaged stream is an error, never its end.

The libraries' own readers are not used: zstandard's takes a truncated frame for the end, and
lzma's ignores whatever follows the first stream.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

import zstandard

from recaption.errors import ShardError

CHUNK = 4 << 20
PIECE = 4 << 10  # bytes per call of a decoder, since a few bytes may expand to megabytes
XZ_MEMORY = 1 << 30
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    **{bytes((i, 0x2A, 0x4D, 0x18)): "zstd" for i in range(0x50, 0x60)},  # skippable frames
}
LONGEST_MAGIC = max(map(len, MAGIC))
PADDED = ("gzip", "xz")  # formats that zeros may follow
DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": partial(zlib.decompressobj, wbits=31),
    "xz": partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, XZ_MEMORY),
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


def compression(head: bytes) -> str | None:
    """The compression (gzip, xz or zstd) that a file's first bytes tell; None for a plain file."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def decompressed(raw: IO[bytes]) -> Iterator[bytes]:
    """The content of a plain or compressed stream, members one after the other.

    Raises ShardError if a compressed one is damaged or cut.
    """
    head = b""
    while len(head) < LONGEST_MAGIC and (data := raw.read(CHUNK)):
        head += data
    kind = compression(head)
    if kind is None:
        yield from _chunks(head, raw)
        return
    done, decoder = 0, None
    members = 0
    for piece in _pieces(head, raw):
        rest = piece
        while rest:
            if decoder is None:
                rest = rest.lstrip(b"\0") if members and kind in PADDED else rest
                if not rest:
                    break
                decoder = DECODERS[kind]()
            try:
                data = decoder.decompress(rest)
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as e:
                raise ShardError(f"damaged {kind} data after {done} bytes: {e}") from None
            done += len(data)
            yield data
            rest = b""
            if decoder.eof:
                rest, decoder, members = decoder.unused_data, None, members + 1
    if decoder is not None:
        raise ShardError(f"{kind} data cut after {done} bytes")


def _chunks(head: bytes, raw: IO[bytes]) -> Iterator[bytes]:
    while head:
        yield head
        head = raw.read(CHUNK)


def _pieces(head: bytes, raw: IO[bytes]) -> Iterator[bytes]:
    for chunk in _chunks(head, raw):
        for start in range(0, len(chunk), PIECE):
            yield chunk[start : start + PIECE]
