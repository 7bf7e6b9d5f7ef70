"""What is used of vLLM is in the version that is installed, and what is missing is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from vllm_uses import CALLED, TEXTS, THERE, changes

from recaption.config.schema import Config
from recaption.engine import families
from recaption.engine.arguments import arguments_of
from recaption.engine.base import Spec


def installed() -> Path:
    found = find_spec("vllm")
    assert found, "vLLM is not installed"
    assert found.origin
    return Path(found.origin).parent


def test_the_installed_version_has_all_that_is_used() -> None:
    assert changes(installed()) == []


def test_every_argument_of_an_engine_is_looked_for() -> None:
    config = Config()
    given = arguments_of(Spec(config, (config.prompt,), None), 1)
    assert set(given) <= set(CALLED["engine/arg_utils.py"]["EngineArgs"].split())
    assert {f.name for f in dataclasses.fields(config.sampling)} <= set(
        CALLED["sampling_params.py"]["SamplingParams"].split()
    )


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        (
            "v1/engine/async_llm.py",
            "sampling_params: SamplingParams,\n        request_id: str,",
            "request_id: str,\n        sampling_params: SamplingParams,",
            "v1/engine/async_llm.py: AsyncLLM.generate: takes (self, prompt, request_id, sampling",
        ),
        ("renderers/registry.py", "def renderer_from_config(", "def renderer_of(", "is not there"),
        (
            "renderers/base.py",
            "def render_messages(",
            "def render_chat(",
            "render_messages: is not",
        ),
        (
            "renderers/params.py",
            "chat_template_kwargs: dict",
            "template_kwargs: dict",
            "ChatParams: takes no chat_template_kwargs",
        ),
        ("outputs.py", "finish_reason: str", "why: str", "CompletionOutput: has no finish_reason"),
        ("plugins/__init__.py", "vllm.general_plugins", "vllm.plugins", "general_plugins"),
        (
            "renderers/inputs/preprocess.py",
            "def parse_model_prompt(model_config: ",
            "def parse_model_prompt(config, model_config: ",
            "takes (config, model_config, prompt)",
        ),
    ],
)
def test_what_has_changed_is_named(
    tmp_path: Path, file: str, before: str, after: str, said: str
) -> None:
    for name in {*CALLED, *THERE, *TEXTS}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed() / name, tmp_path / name)
    path = tmp_path / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    found = changes(tmp_path)
    assert any(said in line for line in found), found
    path.unlink()
    assert f"{file}: is not there" in changes(tmp_path)


@pytest.mark.parametrize(
    ("kind", "able", "given", "made"),
    [
        ("qwen3_vl", True, {}, {"compile_mm_encoder": True}),
        ("qwen3_vl", True, {"level": 3}, {"compile_mm_encoder": True, "level": 3}),
        ("qwen3_vl", True, {"compile_mm_encoder": False}, {"compile_mm_encoder": False}),
        ("qwen3_vl", False, {}, None),
        ("qwen2_5_vl", True, {}, None),
        ("idefics3", True, {}, None),
    ],
)
def test_an_encoder_is_compiled_where_the_version_can(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    able: bool,
    given: dict[str, Any],
    made: dict[str, Any] | None,
) -> None:
    """What a preset says of Qwen2.5-VL's is in its runs' identity, and so stays there."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    if not able:
        monkeypatch.setattr(families, "COMPILES", "what no version has")
    arguments = {"seed": 0} | ({"compilation_config": given} if given else {})
    found = families.with_compiled_encoder(str(tmp_path), arguments)
    assert found == (arguments if made is None else {"seed": 0, "compilation_config": made})
    assert families.with_compiled_encoder(None, arguments) == arguments


def test_a_family_is_mended_only_for_its_own_models(tmp_path: Path) -> None:
    """Another model's renderer and engine import neither the family nor the CPU's executor."""
    looked = (
        "import sys, recaption.engine.vllm\n"
        "from recaption.engine import families\n"
        "families.mend(sys.argv[1])\n"
        "print([n for n in sys.modules if n.endswith(('.idefics3', '.cpu', '.padded')) and "
        "n.startswith('recaption')])\n"
    )
    for kind, wanted in (("qwen3_vl", "[]"), ("idefics3", "['recaption.engine.idefics3']")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        command = [sys.executable, "-c", looked, str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ended.stdout.strip().splitlines()[-1] == wanted
