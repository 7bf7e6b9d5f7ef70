"""An engine without a model, whose captions are hashes of the pixels and the prompt it gets."""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import PIL.Image
import xxhash

from recaption.engine.base import Caption, Device, Question, Spec
from recaption.errors import SampleError, TooLong


class FakeRenderer:
    """Passes the pixels on unchanged. A word is a token, and only a reserve limits their number."""

    def __init__(self, spec: Spec) -> None:
        self.poison = spec.config.engine.poison
        self.room = spec.config.model.max_model_len
        self.filling = bytearray(round(spec.config.engine.input_mb * 1_000_000))

    def clean(self, value: str) -> str:
        return value

    def render(self, rgb: PIL.Image.Image, picture: str, questions: Sequence[Question]) -> Any:
        for question in questions:
            over = self.length(question) - (self.room - (question.reserve or 0))
            if question.reserve and over > 0:
                raise TooLong(f"prompt {question.name} is too long", question.name, over)
        texts = [
            f"{q.system or ''}\n{q.text}{f'#{q.attempt}' * (q.attempt > 0)}" for q in questions
        ]
        payload: dict[str, Any] = {"pixels": rgb.tobytes(), "size": rgb.size, "texts": texts}
        if filling := memoryview(self.filling)[len(payload["pixels"]) :]:
            payload["filling"] = pickle.PickleBuffer(filling)
        if any(self.poison.get(caption_of(payload, text)) == "refuse" for text in texts):
            raise ValueError("poisoned picture")
        return payload

    def length(self, question: Question) -> int:
        return len(f"{question.system or ''} {question.text}".split())


def caption_of(payload: Any, text: str, salt: bytes = b"") -> str:
    """The caption: a hash of the picture and the question."""
    digest = xxhash.xxh3_128(f"{payload['size']}\n{text}\n".encode() + salt)
    digest.update(payload["pixels"])
    return f"fake {digest.hexdigest()[:24]}"


class FakeEngine:
    """Answers at `engine.rate` images/s.

    For captions in `engine.poison` (`*`: all others) it crashes, hangs, fails, waits, or answers otherwise.
    """

    def __init__(self, spec: Spec, device: Device) -> None:
        self.settings = spec.config.engine
        self.device = device
        self.free_at = 0.0
        self.looks = 0
        self.record: int | None = None
        if self.settings.record:
            self.record = os.open(self.settings.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def start(self) -> dict[str, Any]:
        return {"gpu": "none"}

    async def generate(self, payload: Any, request: str) -> list[Caption]:
        if self.settings.rate:
            now = time.monotonic()
            self.free_at = max(now, self.free_at) + 1 / self.settings.rate
            await asyncio.sleep(self.free_at - now)
        salt = secrets.token_bytes(8) if self.settings.salt == "random" else b""
        texts = [caption_of(payload, text, salt) for text in payload["texts"]]
        captions = [Caption(text, "stop", 2) for text in texts]
        for caption in captions:
            await self._poison(caption.text)
            if self.record is not None:
                os.write(self.record, f"{caption.text}\n".encode())
        return [self._changed(caption) for caption in captions]

    def steps(self) -> int:
        self.looks += 1  # it is alive as long as its event loop runs
        return self.looks

    def as_another(self, payload: Any, picture: str, seeded: bool) -> Any:
        return payload

    async def stop(self) -> None:
        return

    def _changed(self, caption: Caption) -> Caption:
        poison = self._poison_of(caption.text)
        if poison == "cut":
            return replace(caption, finish_reason="length")
        if poison.startswith("say "):
            return replace(caption, text=poison.removeprefix("say "))
        return caption

    def _poison_of(self, caption: str) -> str:
        poison = self.settings.poison
        return poison.get(caption) or poison.get("*", "")

    async def _poison(self, caption: str) -> None:
        poison = self._poison_of(caption)
        if poison.startswith("wait "):
            await asyncio.sleep(float(poison.removeprefix("wait ")))
        match poison:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(3600)  # noqa: ASYNC251 - the whole engine is to hang
            case "error":
                raise SampleError("poisoned request")
