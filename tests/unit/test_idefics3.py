"""What this program has to mend in vLLM's model of the tiny one's family."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest


@pytest.mark.parametrize(("counted", "patches"), [(0, 1), (5, 5)])
def test_a_picture_that_is_not_split_keeps_its_pixels(
    monkeypatch: pytest.MonkeyPatch, counted: int, patches: int
) -> None:
    """vLLM 0.25 cuts the pixel values by this count, which is 0 there."""
    from vllm.model_executor.models.idefics3 import Idefics3ProcessingInfo

    from recaption.engine import idefics3

    def count(info: Any, **picture: Any) -> int:
        return counted

    monkeypatch.setattr(idefics3, "_patches_of", count)
    monkeypatch.setattr(Idefics3ProcessingInfo, "get_num_patches", count)
    idefics3.install()
    info: Any = SimpleNamespace()
    picture: dict[str, Any] = {"image_width": 64, "image_height": 64, "mm_kwargs": {}}
    found = Idefics3ProcessingInfo.get_num_patches(info, processor=info, **picture)
    assert found == patches
