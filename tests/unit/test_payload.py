"""What workers hand to engines through shared memory."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recaption.engine.payload import TooSmall, pack, unpack

DTYPES = [torch.bfloat16, torch.float32, torch.uint8, torch.int64, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    values = torch.arange(math.prod(shape)).reshape(shape) % 7
    tensor = values.to(draw(st.sampled_from(DTYPES)))
    return tensor.transpose(0, -1) if shape and draw(st.booleans()) else tensor


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return bool(one == other)


@pytest.fixture(scope="module")
def memory() -> Iterator[int]:
    file = os.memfd_create("payloads")
    os.ftruncate(file, 1 << 17)
    yield file
    os.close(file)


@given(st.dictionaries(st.text(), tensors() | st.binary() | st.integers()), st.integers(0, 8))
def test_what_goes_in_comes_out(memory: int, payload: dict[str, Any], page: int) -> None:
    offset = 4096 * page
    used = pack(payload, memory, offset, 1 << 16)
    with mmap.mmap(memory, 1 << 17) as region:
        with memoryview(region)[offset : offset + used] as view:
            again = unpack(view)
        os.pwrite(memory, bytes(1 << 17), 0)  # the engine's copy is its own
    assert same(payload, again)


def test_a_region_that_is_too_small_says_what_it_needs(memory: int) -> None:
    payload = {"pixels": torch.zeros(1000)}
    with pytest.raises(TooSmall) as refused:
        pack(payload, memory, 0, 512)
    needed = refused.value.args[0]
    assert pack(payload, memory, 0, needed) == needed
