"""The client that a stock server is measured with: every picture once, so many in flight, all timed."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers import wait_until

from recaption.bench import server
from recaption.bench.measured import middle_rate
from recaption.bench.shards import make_shards
from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.engine.base import Spec
from recaption.errors import TaskError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("shards")
    return [str(p) for p in make_shards(folder, shards=2, samples=70, size=(32, 24))]


def _spec(*words: str) -> Spec:
    keys = ("data.shards=/x/0.tar", "output.dir=x", "sampling.max_tokens=7", *words)
    config = to_config(compose_config(prepare(keys)))
    return Spec(config, (config.prompt,), "/model")


class Stock:
    """Answers as the real one does, and keeps what it was asked."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.seen: Counter[bytes] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.flying = self.most = 0

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        image, text = body["messages"][-1]["content"]
        self.seen[base64.b64decode(image["image_url"]["url"].split(",")[1])] += 1
        assert text["type"] == "text"
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0.01)
        self.flying -= 1
        return web.json_response({"usage": {"completion_tokens": 7}}, status=self.status)


async def _ask(stock: Stock, spec: Spec, shards: list[str]) -> tuple[int, list[float]]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", stock.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        url = f"http://127.0.0.1:{port}"
        return await server._captioned(spec, url, server._pictures(shards), 8, Path("log"))
    finally:
        await runner.cleanup()


def test_every_picture_is_asked_once_with_the_runs_own_settings(shards: list[str]) -> None:
    stock = Stock()
    spec = _spec("prompt.system=Be brief.", "sampling.ignore_eos=true")
    tokens, times = asyncio.run(_ask(stock, spec, shards))
    assert tokens == 7 * 140
    assert len(times) == 140
    assert len(stock.seen) == 140, "no picture is there twice"
    assert set(stock.seen.values()) == {1}
    assert stock.most == 8
    body = stock.bodies[0]
    assert (body["max_tokens"], body["temperature"], body["ignore_eos"]) == (7, 0.0, True)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["messages"][1]["content"][1]["text"] == spec.prompts[0].text


TERMINATED = """
import sys
from recaption.bench import command, main, server

def never_ready(spec, replicas, port):
    return [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]

server.command = never_ready
command._server = lambda ours, size, gpus: server.measure_server(ours.spec, [], [], 1, ours.folder / "log")
words = "engine=fake --parts server --images 4 --shards 1 --size 32x24 --folder made"
main(words.split())
"""


def test_the_server_ends_with_a_benchmark_that_is_terminated(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TERMINATED], cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as bench:
        try:
            said = lambda: "".join(p.read_text() for p in tmp_path.glob("made/*/ours/log"))  # noqa: E731
            pid = int(wait_until(lambda: said().strip(), 60, "no server was started"))
        finally:
            bench.terminate()
        bench.wait(60)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, "the server is left")


def test_a_refusal_is_no_rate(shards: list[str]) -> None:
    with pytest.raises(TaskError, match="the server said 400"):
        asyncio.run(_ask(Stock(400), _spec(), shards))


def test_the_command_line_names_the_model_and_tunes_nothing() -> None:
    words = server.command(_spec("engine.tensor_parallel=2", "model.quantization=fp8"), 2, 1234)
    joined = " ".join(words[1:])
    assert joined == (
        "-m vllm.entrypoints.cli.main serve /model --host 127.0.0.1 --port 1234 "
        "--served-model-name model --load-format auto --dtype bfloat16 --api-server-count 8 "
        "--data-parallel-size 2 --tensor-parallel-size 2 --quantization fp8"
    )


def test_the_middle_half_leaves_start_and_tail_out() -> None:
    slow = [10.0 * i for i in range(1, 26)]
    steady = [250.0 + i for i in range(1, 51)]
    tail = [301.0 + 10 * i for i in range(25)]
    assert middle_rate([*slow, *steady, *tail]) == pytest.approx(1.0, rel=0.05)
    assert middle_rate([1.0]) is None
