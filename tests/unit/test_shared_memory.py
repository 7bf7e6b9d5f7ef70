"""Shared memory: regions never overlap, nothing leaks, and it is gone with its processes."""

from __future__ import annotations

import os

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from recaption.pipeline.shared_memory import PAGE, SharedMemory

SIZE = 64 * PAGE


class Machine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.memory = SharedMemory(SIZE)
        self.regions: dict[int, int] = {}

    @rule(size=st.integers(1, SIZE + 10))
    def allot(self, size: int) -> None:
        offset = self.memory.allot(size)
        if offset is None:
            gaps = self.gaps()
            assert max(gaps, default=0) < size, "there was room"
        else:
            assert offset not in self.regions
            self.regions[offset] = -(-size // PAGE) * PAGE

    @rule(data=st.data())
    def shrink(self, data: st.DataObject) -> None:
        if self.regions:
            offset = data.draw(st.sampled_from(sorted(self.regions)))
            size = data.draw(st.integers(0, self.regions[offset]))
            self.memory.shrink(offset, size)
            self.regions[offset] = max(PAGE, -(-size // PAGE) * PAGE)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.regions:
            offset = data.draw(st.sampled_from(sorted(self.regions)))
            self.memory.release(offset)
            del self.regions[offset]

    def gaps(self) -> list[int]:
        end, found = 0, []
        for offset, size in sorted(self.regions.items()):
            found.append(offset - end)
            end = offset + size
        return [*found, SIZE - end]

    @invariant()
    def regions_are_apart(self) -> None:
        if hasattr(self, "memory"):
            assert all(gap >= 0 for gap in self.gaps())

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            for offset in self.regions:
                self.memory.release(offset)
            assert self.memory.allot(SIZE) == 0, "all of it is free again"
            self.memory.close()


TestSharedMemory = Machine.TestCase


def test_it_is_memory_that_others_can_map() -> None:
    memory = SharedMemory(SIZE)
    with open(memory.path, "r+b") as file:
        file.seek(PAGE)
        file.write(b"here")
    assert os.pread(memory.fd, 4, PAGE) == b"here"
    path = memory.path
    memory.close()
    assert not os.path.exists(path)
