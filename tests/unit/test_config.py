from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from recaption.config.compose import compose_config, conf_dir, sweep_points, to_config
from recaption.config.overrides import prepare
from recaption.config.records import typed_config
from recaption.config.schema import Config
from recaption.errors import UserError
from recaption.run.record import plain_config

SHARDS = "data.shards=/d/x.tar"
MODELS = [
    "tiny",
    "smolvlm-256m",
    "llava-1.6-mistral-7b",
    "qwen2.5-vl-3b",
    "qwen2.5-vl-7b",
    "qwen3-vl-2b",
    "qwen3-vl-4b",
    "qwen3-vl-8b",
    "internvl3-8b",
    "gemma-3-4b",
]


def config_of(*words: str, config_dir: Path | None = None) -> Config:
    folder = str(config_dir) if config_dir else None
    return to_config(compose_config(prepare([SHARDS, *words]), config_dir=folder))


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as error:
        config_of(*words)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_defaults() -> None:
    config = config_of()
    assert config.model.name == "tiny"
    assert config.prompt.name == "short"
    assert config.slurm.kind == "local"
    assert config.engine.kind == "vllm"
    assert config.watermark.kind == "off"
    assert config.data.image_keys == "jpg jpeg png webp avif gif bmp".split()
    assert config.data.caption_key == "caption"
    assert config.data.damaged == "fail"
    assert config.data.tries == 2
    assert config.output.text == "replace"
    assert config.output.mode == "full"


@pytest.mark.parametrize("model", MODELS)
def test_every_model_preset_is_complete(model: str) -> None:
    config = config_of(f"model={model}").model
    assert config.name == model
    assert config.path or config.repo
    assert config.max_pixels > 0
    assert config.max_model_len > 0
    assert "chat_template" in (conf_dir() / "model" / f"{model}.yaml").read_text()


@pytest.mark.parametrize("prompt", ["short", "detailed", "tags", "refine"])
def test_every_prompt_preset_is_complete(prompt: str) -> None:
    config = config_of(f"prompt={prompt}").prompt
    assert config.name == prompt
    assert config.text.strip()


def test_refine_uses_the_original_caption() -> None:
    assert "{caption}" in config_of("prompt=refine").prompt.text


@pytest.mark.parametrize("slurm", ["local", "cluster"])
def test_every_slurm_preset(slurm: str) -> None:
    assert config_of(f"slurm={slurm}").slurm.kind == slurm


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("data.shard=x", ["data.shard:", "did you mean shards"]),
        ("dta.name=x", ["dta", "data"]),
        ("engine.max_num_seq=3", ["engine.max_num_seq", "max_num_seqs"]),
        ("model=tinny", ["model=tinny", "tiny", "qwen3-vl-8b"]),
        ("prompt=shrt", ["prompt=shrt", "short", "detailed"]),
        ("slurm=clutser", ["slurm=clutser", "cluster", "local"]),
        ("engine=vlm", ["engine=vlm", "vllm", "fake"]),
        ("watermark=on", ["watermark", "off"]),
        ("output.text=drop", ["output.text=drop", "replace", "keep"]),
        ("output.mode=half", ["output.mode=half", "full", "captions"]),
        ("data.damaged=maybe", ["data.damaged=maybe", "fail", "salvage"]),
        ("data.tries=0", ["data.tries=0", "at least 1"]),
        ("data.tries=many", ["data.tries", "many"]),
        ("data.workers=1.5", ["data.workers", "1.5"]),
        ("sampling.temperature=-1", ["sampling.temperature=-1", "at least 0"]),
        ("sampling.temperature=nan", ["sampling.temperature"]),
        ("sampling.max_tokens=[1]", ["sampling.max_tokens"]),
        ("wait=perhaps", ["wait", "perhaps"]),
        ("slurm.time=1 day", ["slurm.time"]),
        ("data.image_keys=[]", ["data.image_keys"]),
        ("image.background=[1,2]", ["image.background"]),
        ("data.name=a/b", ["data.name", "a/b"]),
        ("data=", ["data"]),
        ("slurm.tasks", ["slurm.tasks", "KEY=VALUE"]),
        ("data.name=${nothing.here}", ["data.name"]),
        ("data.name=[", ["data.name"]),
        ("sampling={a:1}", ["sampling"]),
    ],
)
def test_a_wrong_word_is_refused_by_name(word: str, named: list[str]) -> None:
    message = refusal(word)
    assert all(name in message for name in named), message


def test_a_key_given_twice_is_refused_with_a_word_about_quoting() -> None:
    with pytest.raises(UserError, match=r"data\.shards: given twice.*quot"):
        prepare(["data.shards=/d/0.tar", "data.shards=/d/1.tar"])


@pytest.mark.parametrize("name", ["prompt.text", "prompt.system", "data.range", "data.shards"])
def test_literal_keys_reach_through_a_sweep_unsplit(name: str) -> None:
    value = "a,b {c,d} ${x} 'q'"
    words = {"data.shards": "data.shards=x"} | {name: f"{name}={value}"}
    points = sweep_points([*words.values(), "model=tiny,smolvlm-256m"])
    assert len(points) == 2
    for point in points:
        assert OmegaConf.select(compose_config(point), name) == value


def test_a_sweep_varies_the_last_key_fastest() -> None:
    points = sweep_points([SHARDS, "prompt=short,detailed", "model=tiny,smolvlm-256m"])
    made = [to_config(compose_config(p)) for p in points]
    assert [(c.prompt.name, c.model.name) for c in made] == [
        ("short", "tiny"),
        ("short", "smolvlm-256m"),
        ("detailed", "tiny"),
        ("detailed", "smolvlm-256m"),
    ]


NASTY = st.sampled_from([*"{}[](),:=#'\"\\$ \t\n%~+*?!@&|;<>", "${", "${x}", "\\'", "null"])
anything = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    st.lists(NASTY | st.text("ab0", max_size=2), max_size=8).map("".join),
).filter(lambda v: v not in ("null", "???"))


@settings(max_examples=30)
@given(shards=anything, chosen=anything, text=anything, system=anything)
@example(shards="/d/{00000..00007}.tar", chosen="0-3,8,10-", text="{caption} = ${x}", system="\\")
@example(shards="a\\'b", chosen="\\\\", text="\\${x}", system="${oc.env:HOME}")
@example(shards="true", chosen="1", text="1e3", system="[a, b]")
@example(shards="a,b", chosen="x=y", text="two\nlines", system="  spaces  ")
def test_values_of_the_literal_keys_arrive_as_they_are(
    shards: str, chosen: str, text: str, system: str
) -> None:
    given_values = {
        "data.shards": shards,
        "data.range": chosen,
        "prompt.text": text,
        "prompt.system": system,
    }
    cfg = compose_config(prepare(f"{k}={v}" for k, v in given_values.items()))
    config: Any = to_config(cfg)
    found = {
        "data.shards": config.data.shards,
        "data.range": config.data.range,
        "prompt.text": config.prompt.text,
        "prompt.system": config.prompt.system,
    }
    assert found == given_values


@pytest.mark.parametrize(
    ("word", "section", "value"),
    [
        ("slurm.additional={a: b, container-image: /i.sqsh}", "slurm.additional", None),
        ("engine.poison={x: crash}", "engine.poison", {"x": "crash"}),
        ("model.engine={a: {b: 1}}", "model.engine", {"a": {"b": 1}}),
        ("slurm.additional={}", "slurm.additional", {}),
    ],
)
def test_free_mappings_as_a_whole(word: str, section: str, value: object) -> None:
    parent, leaf = section.split(".")
    found = getattr(getattr(config_of(word), parent), leaf)
    assert found == (value if value is not None else {"a": "b", "container-image": "/i.sqsh"})


def test_free_mappings_take_new_keys() -> None:
    config = config_of("slurm.additional.reservation=night", "model.engine.block_size=32")
    assert config.slurm.additional == {"reservation": "night"}
    assert config.model.engine == {"block_size": 32}


def test_presets_of_a_users_own(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/site.yaml").write_text("kind: cluster\npartition: gpu\ntime: '12:00:00'\n")
    config = config_of("slurm=site", config_dir=tmp_path)
    assert (config.slurm.partition, config.slurm.time) == ("gpu", 720)


def test_a_configuration_survives_its_record() -> None:
    config = config_of("slurm.tasks=3", "prompt.text={caption}, ${x}", "model.processor.a=1")
    again = typed_config(plain_config(config))
    again.data.shards = config.data.shards
    assert again == config
