"""Shared memory of a fixed size for prepared pictures, which limits how many wait for engines.

An anonymous memory file: other processes of the task open it as /proc/PID/fd/N, and the kernel
frees it with the last of them, so nothing is left behind by a kill.
"""

from __future__ import annotations

import os

PAGE = 4096


class SharedMemory:
    """A memory file with first-fit allocation: the parent allots, workers write, engines read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.fd = os.memfd_create("recaption")
        os.ftruncate(self.fd, size)
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"
        self.free: list[tuple[int, int]] = [(0, size)]  # (offset, size), by offset
        self.used: dict[int, int] = {}

    def allot(self, size: int) -> int | None:
        """The offset of a new region of at least `size` bytes; None while there is no room."""
        size = -(-size // PAGE) * PAGE
        for i, (offset, room) in enumerate(self.free):
            if room >= size:
                rest = [(offset + size, room - size)] if room > size else []
                self.free[i : i + 1] = rest
                self.used[offset] = size
                return offset
        return None

    def shrink(self, offset: int, size: int) -> None:
        """Free the part of a region behind its first `size` bytes."""
        size = max(PAGE, -(-size // PAGE) * PAGE)
        surplus = self.used[offset] - size
        if surplus > 0:
            self.used[offset] = size
            self._add(offset + size, surplus)

    def release(self, offset: int) -> None:
        self._add(offset, self.used.pop(offset))

    def close(self) -> None:
        os.close(self.fd)

    def _add(self, offset: int, size: int) -> None:
        free = self.free
        low, high = 0, len(free)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if free[middle][0] < offset else (low, middle)
        free.insert(low, (offset, size))
        if low + 1 < len(free) and offset + size == free[low + 1][0]:
            free[low : low + 2] = [(offset, size + free[low + 1][1])]
        if low and free[low - 1][0] + free[low - 1][1] == offset:
            before = free[low - 1]
            free[low - 1 : low + 1] = [(before[0], before[1] + free[low][1])]
