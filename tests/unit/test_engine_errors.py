"""What vLLM raises for one request is that request's; what it raises at its end is the engine's."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.engine.base import Device, Spec
from recaption.errors import SampleError


class Engine:
    """An AsyncLLM whose requests end in errors, but those named `good`."""

    def __init__(self, error: BaseException, *, dead: bool) -> None:
        self.error, self.errored = error, dead

    async def generate(self, rendered: str, sampling: Any, request: str) -> Any:
        if rendered != "good":
            raise self.error
        answer = SimpleNamespace(text=" said ", finish_reason="stop", token_ids=[1, 2])
        yield SimpleNamespace(outputs=[answer])


def ask(error: BaseException, *, dead: bool) -> Any:
    from recaption.engine.vllm import VllmEngine

    config = to_config(compose_config(prepare(["data.shards=/x.tar"])))
    engine = VllmEngine(Spec(config, (config.prompt,), "x"), Device(0))
    engine.engine = Engine(error, dead=dead)
    payload = [("good", None, None), ("bad", None, None), ("good", None, None)]
    return asyncio.run(engine.generate(payload, "7"))


def test_errors_of_a_request() -> None:
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.exceptions import EngineGenerateError

    wrapped = EngineGenerateError()
    wrapped.__cause__ = TypeError("of a bug")
    for error, said in (
        (VLLMValidationError("The decoder prompt is too long"), "is too long"),
        (ValueError("no such token"), "ValueError: no such token"),
        (wrapped, "TypeError: of a bug"),
    ):
        with pytest.raises(SampleError, match=said):
            ask(error, dead=False)


def test_the_end_of_an_engine() -> None:
    from vllm.v1.engine.exceptions import EngineDeadError

    with pytest.raises(EngineDeadError):
        ask(EngineDeadError(), dead=True)
    with pytest.raises(KeyError):
        ask(KeyError("the output handler ended"), dead=True)
