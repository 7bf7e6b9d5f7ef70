"""The engine alone, measured: what it is given is never a picture that it has seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.engine import child
from recaption.engine.base import Caption, Device, Spec
from recaption.engine.payload import pack


class Engine:
    """Keeps the pictures and requests that it is asked about."""

    def __init__(self) -> None:
        self.pictures: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()

    async def generate(self, payload: Any, request: str) -> list[Caption]:
        self.pictures[payload] += 1
        self.requests[request] += 1
        return [Caption("said", "stop", 1)]

    def as_another(self, payload: Any, picture: str, seeded: bool) -> Any:
        return picture


class Connection:
    def send(self, messages: Any) -> None:
        pass


def test_no_picture_is_replayed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or an engine's caches would answer: those that warm it, and earlier measurements, count, too."""
    words = ["data.shards=/x.tar", "engine=fake", "engine.max_num_seqs=4"]
    config = to_config(compose_config(prepare(words)))
    engine = Engine()
    monkeypatch.setattr(child, "make_engine", lambda spec, device: engine)
    with (tmp_path / "arena").open("w+b") as arena:
        arena.truncate(1 << 16)
        length = pack("payload", arena.fileno(), 0, 1 << 16)
        spec = Spec(config, (config.prompt,), None)
        server = child._Server(Connection(), spec, Device(0), arena.name)  # type: ignore[arg-type]

        async def measure() -> None:
            server.loop = asyncio.get_running_loop()
            for count in (10, 30, 30):
                await server._replay([(0, length)], count, seeded=True)

        asyncio.run(measure())
    assert engine.pictures.total() == engine.requests.total() == 70
    assert max(engine.pictures.values()) == max(engine.requests.values()) == 1
