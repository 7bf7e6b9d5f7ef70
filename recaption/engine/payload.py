"""Payloads in shared memory: one copy in, one copy out, tensors never pickled in-band.

Layout: the number of parts and the size of each as little-endian u64, then the parts, the pickle
first, each starting at a multiple of 64 bytes.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any

ALIGN = 64


class TooSmall(Exception):
    """The region does not hold the payload; args[0] is the number of bytes it needs."""


def pack(payload: Any, file: int, offset: int, room: int) -> int:
    """Write `payload` at `offset` of an open file; return the bytes used.

    Raises TooSmall if it needs more than `room` bytes. The file is written, not mapped, so that memory
    which all workers share does not count as resident in each of them.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, 5, buffer_callback=buffers.append).dump(payload)
    parts = [stream.getbuffer(), *(b.raw() for b in buffers)]
    header = struct.pack(f"<{len(parts) + 1}Q", len(parts), *(p.nbytes for p in parts))
    whole: list[bytes | memoryview] = [header, *parts]
    pieces = [piece for part in whole for piece in (part, bytes(-len(part) % ALIGN))]
    end = sum(map(len, pieces))
    if end > room:
        raise TooSmall(end)
    if os.pwritev(file, pieces, offset) != end:
        raise OSError(errno.ENOSPC, "the shared memory of prepared pictures is cut short")
    return end


def unpack(region: memoryview) -> Any:
    """A copy of the payload in `region`."""
    (count,) = struct.unpack_from("<Q", region)
    sizes = struct.unpack_from(f"<{count}Q", region, 8)
    parts, place = [], _aligned(8 * (count + 1))
    for size in sizes:
        parts.append(bytearray(region[place : place + size]))
        place = _aligned(place + size)
    return pickle.loads(parts[0], buffers=parts[1:])


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(value, torch.Tensor):
            return NotImplemented
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(flat), str(value.dtype)[6:], tuple(value.shape))


def _tensor(buffer: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    import torch

    if 0 in shape:  # frombuffer() refuses an empty buffer
        return torch.empty(shape, dtype=getattr(torch, dtype))
    view: Callable[..., Any] = torch.frombuffer(buffer, dtype=torch.uint8).view
    return view(getattr(torch, dtype)).reshape(shape)
