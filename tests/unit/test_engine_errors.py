"""What engines are given, and whose an error is: one request's, or the engine's."""

from __future__ import annotations

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.engine import devices
from recaption.engine.arguments import environment, request_seed
from recaption.engine.base import Device, Question, Spec
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


SAMPLING = {  # another value of each key than its default
    "max_tokens": 7, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
    "repetition_penalty": 1.1, "seed": 3, "stop": ["."], "ignore_eos": True,
}  # fmt: skip


def test_every_sampling_key_reaches_vllm() -> None:
    from recaption.engine.vllm import sampling_parameters

    words = [f"sampling.{k}={str(v).lower()}" for k, v in SAMPLING.items() if k != "stop"]
    cfg = compose_config(prepare(["data.shards=/x.tar", *words, "sampling.stop=['.']"]))
    config = to_config(cfg)
    assert dataclasses.asdict(config.sampling) == SAMPLING
    made = sampling_parameters(Spec(config, (config.prompt,), "x"), config.sampling.temperature)
    for name, value in SAMPLING.items():
        if name != "seed":  # each request has its own
            assert getattr(made, name) == value, name
    seeds = [
        request_seed(config.sampling, picture, Question("short", None, "x", attempt))
        for picture in ("a", "b")
        for attempt in (0, 1)
    ]
    assert len(set(seeds)) == 4
    other = dataclasses.replace(config.sampling, seed=4)
    assert request_seed(other, "a", Question("short", None, "x")) not in seeds


@pytest.mark.parametrize(
    ("named", "words", "groups"),
    [
        (None, [], ["0", "1", "2", "3"]),
        (None, ["engine.tensor_parallel=2"], ["0,1", "2,3"]),
        (None, ["engine.replicas=3"], ["0", "1", "2"]),
        ("5,GPU-1f,7", ["engine.tensor_parallel=2"], ["5,GPU-1f"]),
        ("5,GPU-1f,7", ["engine.replicas=2"], ["5", "GPU-1f"]),
    ],
)
def test_each_engine_gets_its_own_gpus(
    monkeypatch: pytest.MonkeyPatch, named: str | None, words: list[str], groups: list[str]
) -> None:
    """Four pretended GPUs; what an engine's process sees is its device's."""
    monkeypatch.setattr(devices, "_present_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    config = to_config(compose_config(prepare(["data.shards=/x.tar", *words])))
    seen = [
        environment(device) for device in devices.engine_devices(config, devices.visible_gpus())
    ]
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in seen] == groups
    assert len({variables["VLLM_PORT"] for variables in seen}) == len(groups)


@pytest.mark.parametrize(
    ("words", "gpus", "said"),
    [
        (["engine.tensor_parallel=3"], 8, "engine.tensor_parallel=3: no engine takes 2 of the 8"),
        (["engine.replicas=3"], 8, "engine.replicas=3: no engine takes 5 of the 8"),
        (["engine.tensor_parallel=4", "engine.replicas=2"], 8, ""),
        (["engine.tensor_parallel=3", "engine=fake"], 8, ""),
        (["engine.tensor_parallel=2"], 0, ""),
    ],
)
def test_gpus_that_no_engine_takes_are_said(words: list[str], gpus: int, said: str) -> None:
    config = to_config(compose_config(prepare(["data.shards=/x.tar", *words])))
    found = devices.idle_gpus(config, gpus)
    assert found.startswith(said)
    assert bool(found) == bool(said)
