"""The interface of engines to the pipeline, for every kind of engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import PIL.Image

from recaption.config.records import typed_config
from recaption.config.schema import Config, Prompt
from recaption.run.record import RULES

OWN_SIDE = 224  # pixels of a side of the built-in picture


@dataclass(frozen=True)
class Spec:
    """All that preparation workers and engines need to know of a run."""

    config: Config
    prompts: tuple[Prompt, ...]
    model_path: str | None
    rules: int = RULES

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        record = json.loads(text)
        prompts = tuple(Prompt(**p) for p in record["prompts"])
        return cls(typed_config(record["config"]), prompts, record["model_path"], record["rules"])


@dataclass(frozen=True)
class Question:
    """One prompt as it is put to the model for one picture; system and text are filled in."""

    name: str
    system: str | None
    text: str
    attempt: int = 0  # which try of a flagged caption this is, for seeds
    temperature: float | None = None  # instead of sampling.temperature
    reserve: int | None = None  # tokens to be left for the answer; None: one


@dataclass(frozen=True)
class Caption:
    """One answer; `finish_reason` is vLLM's, `stop` or `length`."""

    text: str
    finish_reason: str
    tokens: int


@dataclass(frozen=True)
class Device:
    """An engine's number in the task, and the environment variables that give it its GPUs."""

    number: int
    environment: dict[str, str] = field(default_factory=dict)


def own_picture(renderer: Renderer, prompts: Sequence[Prompt]) -> Any:
    """The payload of a picture of our own, asked the prompts as they are written.

    Where it cannot be made, or an engine dies of it, no sample is to blame.
    """
    questions = [Question(p.name, p.system, p.text) for p in prompts]
    picture = PIL.Image.new("RGB", (OWN_SIDE, OWN_SIDE), "white")
    return renderer.render(picture, "own", questions)


class Renderer(Protocol):
    """Turns a picture and questions into payloads; lives in a preparation worker."""

    def clean(self, value: str) -> str:
        """A text of a sample's, without the model's special tokens."""

    def render(self, rgb: PIL.Image.Image, picture: str, questions: Sequence[Question]) -> Any:
        """A payload that `Engine.generate` takes; `picture` identifies the picture.

        Raises TooLong when a prompt leaves less of the model's context than its reserve.
        """

    def length(self, question: Question) -> int:
        """Number of tokens of a question, without its picture."""


class Engine(Protocol):
    """Generates captions; lives in an engine process, inside its event loop."""

    async def start(self) -> dict[str, Any]:
        """Load the model; returns facts about the device for the records."""

    async def generate(self, payload: Any, request: str) -> list[Caption]:
        """One caption per question of the payload.

        Raises SampleError for what is wrong with this payload alone; all else is the engine's end.
        """

    def steps(self) -> int:
        """A number that changes for as long as it goes on generating: its only sign of life between
        the answers, of which a long one takes minutes."""

    def as_another(self, payload: Any, picture: str, seeded: bool) -> Any:
        """The payload as if it were another picture's, for measurements that replay it.

        Where it has seeds, they are dropped unless `seeded`.
        """

    async def stop(self) -> None:
        """Release devices and processes."""
