"""How many suspects an engine gets at once."""

from __future__ import annotations

from typing import Any

import pytest

from recaption.engine.base import Device
from recaption.pipeline.engines import EngineHandle, Engines
from recaption.pipeline.work import Work


@pytest.mark.parametrize(("deaths", "most"), [(0, 24), (1, 12), (2, 6), (3, 3), (9, 1)])
def test_windows_shrink_with_every_death_in_a_row(deaths: int, most: int) -> None:
    """Where 5 % of the pictures kill, windows of 24 would end an engine that may die four times."""
    nothing: Any = None
    handle = EngineHandle(Device(0), nothing, nothing, ready=True, deaths=deaths)
    engines = object.__new__(Engines)
    engines.handles = [handle]
    for number in range(most):
        suspect = Work(number, nothing, number, strikes=1)
        assert engines.may_take_suspect(suspect, 24) is handle
        engines.assign(handle, suspect)
    assert engines.may_take_suspect(Work(most, nothing, most, strikes=1), 24) is None
