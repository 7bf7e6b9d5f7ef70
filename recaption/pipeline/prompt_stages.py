"""Groups prompts into stages: a prompt that uses another's answer is in a later stage."""

from __future__ import annotations

from collections.abc import Sequence

from recaption.config.schema import Prompt
from recaption.model.prompt import fields_of


def stages_of(prompts: Sequence[Prompt]) -> list[tuple[str, ...]]:
    """Names of the prompts per stage."""
    stage: dict[str, int] = {}
    for prompt in prompts:
        needed = [f.name for f in fields_of(prompt) if f.source == "captions"]
        stage[prompt.name] = max((stage[name] + 1 for name in needed), default=0)
    last = max(stage.values())
    return [tuple(n for n, s in stage.items() if s == level) for level in range(last + 1)]
