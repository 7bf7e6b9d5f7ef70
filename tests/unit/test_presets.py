"""Presets of models: each composes, and the installed vLLM knows what it names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from recaption.config.compose import compose_config, conf_dir, to_config
from recaption.config.schema import Model
from recaption.engine.needs import unmet
from recaption.launch.help import presets

PRESETS = [name for name in presets("model") if name != "custom"]
UNCOUNTED = ("minicpm-v-4.5", "molmo2-8b", "tiny")
THINKING = ("qwen3.5-4b", "qwen3.5-9b", "minicpm-v-4.5")


def model_of(preset: str) -> Model:
    words = [f"model={preset}", "data.shards=a", "data.name=a", "output.dir=b"]
    return to_config(compose_config(words)).model


@pytest.mark.parametrize("preset", PRESETS)
def test_vllm_knows_a_presets_architecture(preset: str) -> None:
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.submodule_search_locations is not None
    (package,) = found.submodule_search_locations
    registry = (Path(package) / "model_executor/models/registry.py").read_text()
    model = model_of(preset)
    assert model.name == preset
    assert unmet(model) is None
    assert model.architectures is not None
    assert [a for a in model.architectures if f'"{a}"' not in registry] == []


def test_no_preset_lets_a_model_think_in_its_captions() -> None:
    told = {p for p in PRESETS if model_of(p).chat_template_kwargs == {"enable_thinking": False}}
    assert told == set(THINKING)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in UNCOUNTED])
def test_pictures_and_an_answer_fit_the_context(preset: str) -> None:
    """By the tokens that the preset states, with 256 for a prompt and 256 for an answer."""
    text = (conf_dir() / "model" / f"{preset}.yaml").read_text()
    stated = text.partition("# Image tokens: ")[2].partition(".\n")[0]
    tokens = [int(pair.split()[1].replace(",", "")) for pair in stated.split(", ")]
    assert max(tokens) + 512 <= model_of(preset).max_model_len
