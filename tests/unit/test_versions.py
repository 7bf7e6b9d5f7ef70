"""What later versions know of earlier ones: their keys, defaults, presets and records."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
from omegaconf import OmegaConf

from recaption.config import earlier
from recaption.config.check import check
from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.config.records import from_record, new_keys, typed_config
from recaption.config.renamed import renamed_record
from recaption.config.schema import Config, Data, key
from recaption.errors import UserError
from recaption.run.identity import identity
from recaption.run.record import plain_config

OLDEST = "0.1.0"
SHARDS = "data.shards=/data/{0..3}.tar"


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in node.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def test_a_key_says_what_its_absence_stood_for_exactly_where_the_oldest_version_lacked_it() -> None:
    stored = OmegaConf.load(earlier.HERE / f"{OLDEST}.yaml")
    then = renamed_record(cast("dict[str, Any]", OmegaConf.to_container(stored)))
    now = OmegaConf.to_container(OmegaConf.structured(Config))
    lacked = set(_flat(now)) - set(_flat(then))
    assert set(new_keys()) == lacked
    assert not set(_flat(then)) - set(_flat(now)), "a key of an earlier version is gone"


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("0.0.9", "0.1.0"), ("0.1.0", "0.1.0"), ("0.2.0", None), ("1.0", None)],
)
def test_presets_hold_for_runs_up_to_their_version(version: str, wanted: str | None) -> None:
    assert earlier.generation(version) == wanted


@pytest.mark.parametrize("model", ["tiny", "qwen2.5-vl-7b", "internvl3-8b"])
def test_an_earlier_version_composes_with_its_own_defaults_and_presets(model: str) -> None:
    cfg = compose_config(prepare([SHARDS, f"model={model}"]), version=OLDEST)
    preset = OmegaConf.load(earlier.presets(OLDEST) / "model" / f"{model}.yaml")
    for name, value in preset.items():
        assert OmegaConf.to_container(cfg)["model"][name] == value  # type: ignore[index,call-overload]
    defaults = OmegaConf.load(earlier.HERE / f"{OLDEST}.yaml")
    assert cfg.quality.retries == defaults.quality.retries
    for name, value in new_keys().items():
        assert OmegaConf.select(cfg, name) == value, name
    check(to_config(cfg))


@dataclasses.dataclass(kw_only=True)
class _Later(Data):
    """The section of a later version, with a key that changes nothing by itself."""

    flavor: str = key("sweet", "a later key", was="plain")


def test_a_neutral_later_key_stays_out_of_the_identity_and_another_value_does_not() -> None:
    config = to_config(compose_config(prepare([SHARDS, "output.dir=x"])))
    urls = ["/data/0.tar"]
    before = identity(config, [config.prompt], "files", urls)

    from recaption.run import identity as module

    names = (*module.DATA_KEYS, "flavor")
    record = dataclasses.asdict(config.data)
    plain = from_record(_Later, record, "data")
    assert plain.flavor == "plain", "a record without the key stands for what was"
    assert module._section("data", plain, names) == module._section(
        "data", config.data, module.DATA_KEYS
    )
    assert module._section("data", _Later(**record), names)["data.flavor"] == "sweet"
    assert identity(config, [config.prompt], "files", urls) == before


def test_arguments_of_the_chat_template_shape_captions() -> None:
    plain, unthinking, bound = (
        to_config(compose_config(prepare([SHARDS, "output.dir=x", *words])))
        for words in (
            (),
            ("model.chat_template_kwargs.enable_thinking=false",),
            ("model.vllm=>=0.2",),
        )
    )
    found = [identity(c, [c.prompt], "files", ["/data/0.tar"]) for c in (plain, unthinking, bound)]
    assert found[1] == found[0] | {"model.chat_template_kwargs": {"enable_thinking": False}}
    assert found[2] == found[0], "which vLLM a model needs shapes nothing"


def test_a_field_that_is_not_known_is_said_by_name(tmp_path: Path) -> None:
    config = to_config(compose_config(prepare([SHARDS, "output.dir=x"])))
    record = plain_config(config)
    assert typed_config(record) == dataclasses.replace(
        config, data=dataclasses.replace(config.data, shards=None)
    )
    record["data"]["flavor"] = "sweet"
    with pytest.raises(UserError, match=r"data: has flavor, which this version"):
        typed_config(record, "submissions/0.json")
    del record["data"]["flavor"]
    record["spice"] = {}
    with pytest.raises(UserError, match=r"submissions/0.json: has spice"):
        typed_config(record, "submissions/0.json")
