"""The engine and the renderer of a run's kind; vLLM is imported only where it is used."""

from __future__ import annotations

import os

from recaption.engine import leftovers
from recaption.engine.arguments import environment
from recaption.engine.base import Device, Engine, Renderer, Spec


def make_renderer(spec: Spec) -> Renderer:
    """What turns pictures and questions into payloads."""
    if spec.config.engine.kind == "fake":
        from recaption.engine.fake import FakeRenderer

        return FakeRenderer(spec)
    from recaption.engine.vllm import VllmRenderer

    return VllmRenderer(spec)


def make_engine(spec: Spec, device: Device) -> Engine:
    """What makes captions of payloads."""
    if spec.config.engine.kind == "fake":
        from recaption.engine.fake import FakeEngine

        return FakeEngine(spec, device)
    from recaption.engine.vllm import VllmEngine

    os.environ.update(environment(device))
    leftovers.begin()
    return VllmEngine(spec, device)
