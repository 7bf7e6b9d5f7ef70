"""The questions of a sample: its prompts with fields filled in, and cut if they are too long."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import PIL.Image

from recaption.config.schema import Config, Prompt
from recaption.engine.base import Question, Renderer
from recaption.errors import TooLong
from recaption.model.prompt import Values, fill, has_fields

MOST = 16  # characters per token of the context; longer fields certainly do not fit


@dataclass(frozen=True)
class Asked:
    """Prompts, and a sample's values for their fields."""

    prompts: Sequence[Prompt]
    values: Values
    config: Config
    attempt: int
    temperature: float | None

    def payload(
        self, renderer: Renderer, rgb: PIL.Image.Image, picture: str
    ) -> tuple[Any, tuple[str, ...]]:
        """The engine's input, and the names of the prompts whose fields were cut.

        Raises SampleError if a sample lacks a field, and TooLong if a prompt does not fit the
        context even without its fields.
        """
        questions = {p.name: self._question(p, renderer) for p in self.prompts}
        cut: dict[str, Question] = {}
        while True:
            try:
                payload = renderer.render(rgb, picture, list((questions | cut).values()))
            except TooLong as e:
                if e.prompt in cut or questions[e.prompt].reserve is None:
                    raise
                cut[e.prompt] = self._cut(e.prompt, e.over, renderer)
            else:
                return payload, tuple(cut)

    def _question(self, prompt: Prompt, renderer: Renderer, longest: int | None = None) -> Question:
        """A prompt with its fields, each cut to `longest` characters."""
        system = prompt.system
        if system:
            system = fill(system, self.values, renderer.clean, longest)
        text = fill(prompt.text, self.values, renderer.clean, longest)
        cuts = self.values.rules.cuts and has_fields(prompt)
        reserve = self._reserve() if cuts else None
        return Question(prompt.name, system, text, self.attempt, self.temperature, reserve)

    def _reserve(self) -> int:
        """Tokens that fields leave for the answer: max_tokens, but at most half of the context."""
        return min(self.config.sampling.max_tokens, self.config.model.max_model_len // 2)

    def _cut(self, name: str, over: int, renderer: Renderer) -> Question:
        """The question with its longest fields shortened by `over` tokens, or to nothing."""
        prompt = next(p for p in self.prompts if p.name == name)

        def tokens(longest: int) -> int:
            return renderer.length(self._question(prompt, renderer, longest))

        most = MOST * self.config.model.max_model_len
        room = renderer.length(self._question(prompt, renderer)) - over
        longest = bisect.bisect_right(range(1, most), room, key=tokens)
        return replace(self._question(prompt, renderer, longest), reserve=None)
