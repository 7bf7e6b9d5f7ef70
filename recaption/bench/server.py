"""Measures the common alternative: `vllm serve` with its defaults and an asynchronous client.

The client keeps a fixed number of requests in flight, each with one picture in base64. Other pictures
warm the server up first.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from recaption.bench.measured import Measured, middle_rate
from recaption.engine.base import Spec
from recaption.errors import TaskError

IN_FLIGHT = 600  # requests per GPU; the server's default runs 1,024 at once
API_SERVERS = 4  # per GPU, so that decoding pictures is no bottleneck
WARM = 256  # pictures before the clock starts
START_SECONDS = 900.0
STOP_SECONDS = 30.0
TIMEOUT = aiohttp.ClientTimeout(total=None)


def measure_server(
    spec: Spec, warm: Sequence[str], shards: Sequence[str], gpus: int, log: Path
) -> Measured:
    """Start the server on `gpus` GPUs, warm it, and caption every picture of `shards` once.

    Raises TaskError if it does not start or a request fails, naming its `log`.
    """
    replicas = gpus // spec.config.engine.tensor_parallel
    with _served(spec, replicas, log) as url:
        asyncio.run(_captioned(spec, url, _pictures(warm), IN_FLIGHT * replicas, log))
        began = time.monotonic()
        tokens, times = asyncio.run(
            _captioned(spec, url, _pictures(shards), IN_FLIGHT * replicas, log)
        )
    return Measured(len(times), max(times) - began, tokens, {}, middle_rate(times))


def command(spec: Spec, replicas: int, port: int) -> list[str]:
    """The server's command line, which names the model and tunes nothing."""
    model = spec.config.model
    words = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(spec.model_path)),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model"),
        *("--load-format", model.load_format, "--dtype", model.dtype),
        *("--api-server-count", str(API_SERVERS * replicas)),
    ]
    if replicas > 1:
        words += ["--data-parallel-size", str(replicas)]
    if spec.config.engine.tensor_parallel > 1:
        words += ["--tensor-parallel-size", str(spec.config.engine.tensor_parallel)]
    if model.quantization:
        words += ["--quantization", model.quantization]
    return words


@contextmanager
def _served(spec: Spec, replicas: int, log: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(spec, replicas, port),
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(_until_ready(process, url, log))
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise TaskError(f"bench: the server ended with {process.returncode}; see {log}")
            try:
                async with session.get(f"{url}/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
    raise TaskError(f"bench: the server was not ready after {START_SECONDS:g} s; see {log}")


def _pictures(shards: Sequence[str]) -> Iterator[bytes]:
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                yield file.read()


async def _captioned(
    spec: Spec, url: str, pictures: Iterator[bytes], in_flight: int, log: Path
) -> tuple[int, list[float]]:
    """Tokens of all answers, and when each picture was done."""
    tokens = 0
    times: list[float] = []
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:

        async def lane() -> None:
            nonlocal tokens
            for picture in pictures:
                for body in _bodies(spec, picture):
                    count = await _asked(session, url, body, log)
                    tokens += count
                times.append(time.monotonic())

        await asyncio.gather(*(lane() for _ in range(in_flight)))
    return tokens, times


def _bodies(spec: Spec, picture: bytes) -> Iterator[dict[str, Any]]:
    """One request per prompt."""
    sampling = spec.config.sampling
    image = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    for prompt in spec.prompts:
        content = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": prompt.text},
        ]
        system = [{"role": "system", "content": prompt.system}] if prompt.system else []
        yield {
            "model": "model",
            "messages": [*system, {"role": "user", "content": content}],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "ignore_eos": sampling.ignore_eos,
            "chat_template_kwargs": spec.config.model.chat_template_kwargs,
        }


async def _asked(session: aiohttp.ClientSession, url: str, body: Any, log: Path) -> int:
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        text = await answer.text()
        if answer.status != 200:
            raise TaskError(f"bench: the server said {answer.status}: {text[:200]}; see {log}")
        return int(json.loads(text)["usage"]["completion_tokens"])
