"""A mistake in any key of a user's preset is one message that names the key, before anything is made."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from drawing import write_shards
from omegaconf import OmegaConf

from recaption.config import earlier
from recaption.config.compose import compose_config, to_config
from recaption.config.onnx import Scorer
from recaption.config.overrides import check_key, stored_key
from recaption.config.schema import Config
from recaption.config.schema_walk import walk
from recaption.errors import UserError
from recaption.launch import main as launch

PRESETS: dict[str, dict[str, Any]] = {  # sections that have presets, and what stands in one
    "data": {"damaged": "fail"},
    "model": {"name": "site", "path": "builtin:tiny", "max_model_len": 512},
    "prompt": {"name": "site", "text": "Say it."},
    "engine": {"kind": "fake"},
    "slurm": {"kind": "local"},
    "watermark": {"kind": "off"},
    "output": {"text": "replace"},
}
WRONG: dict[Any, list[Any]] = {  # type of a key → values of another one
    bool: ["perhaps"],
    int: ["many"],
    float: ["many"],
    str: [["a", "list"]],
    list: ["text", {"a": 1}],
    dict: ["text", ["a"]],
}
# Keys of any type, whose wrong values are out of range, and what else is known without a GPU.
FURTHER: list[tuple[str, Any]] = [
    ("data.shards", "nowhere/{0..1}.tar"),
    ("data.range", "9-12"),
    ("data.range", "x"),
    ("data.name", "a/b"),
    ("data.image_keys", []),
    ("data.image_keys", [""]),
    ("data.image_keys", ["txt"]),
    ("data.image_keys", [{"a": 1}]),
    ("data.text_key", "json"),
    ("image.formats", ["TIF"]),
    ("image.background", [1, 2, 300]),
    ("image.max_aspect", float("nan")),
    ("model.repo", "two/sources"),
    ("prompt.name", "a/b"),
    ("prompt.text", "{nosuch}"),
    ("prompts", ["nosuch"]),
    ("prompts", [["short"]]),
    ("model.vllm", "new"),
    ("model.vllm", ""),
    ("model.chat_template_kwargs", {"tokenize": True}),
    ("sampling.stop", [["a"]]),
    ("engine.poison", {"a": "nosuch"}),
    ("slurm.gpus", "lots"),
    ("slurm.gpus", 65),
    ("slurm.mem", "lots"),
    ("slurm.mem", True),
    ("slurm.time", "1:30"),
    ("slurm.time", "soon"),
    ("watermark.size", 5000),
    ("watermark.mean", [1]),
    ("watermark.std", [1, 0, 1]),
    ("watermark.threshold", float("nan")),
    ("scorers.look.size", "wide"),
    ("scorers.look.path", "/no/such.onnx"),
    ("scorers.look.mean", {"a": 1}),
    ("quality.flags", ["nosuch"]),
    ("quality.bad", ["nosuch"]),
    ("quality.bad", ["cut"]),
    ("output.dir", "s3://bucket/run"),
    ("output.license", "My License"),
    ("output.group", "no such group"),
]
CANNOT_BE_KNOWN = {  # keys that a value of the right type may be wrong for, unseen by a dry run
    **dict.fromkeys(
        (f"slurm.{key}" for key in "partition account qos constraint exclude additional".split()),
        "only the cluster's sbatch knows what it has, and a dry run does not ask it",
    ),
    **dict.fromkeys(
        (f"slurm.{key}" for key in "setup python srun_args".split()),
        "lines for the shells of the nodes: only there can they be run",
    ),
    **dict.fromkeys(
        (f"model.{key}" for key in "processor engine quantization chat_template".split()),
        "vLLM's own: its trial names them, tests/integration/test_trial.py; engine=fake reads none",
    ),
    **dict.fromkeys(
        ("data.spool", "task.metrics", "engine.record", "engine.cache"),
        "a path on the nodes, which need not be there on the machine that launches",
    ),
    **dict.fromkeys(
        ("model.path", "model.cache"), "engine=fake needs no model's files, so it looks for none"
    ),
    "watermark.path": "looked for where watermark=onnx; scorers.look.path above is the same check",
    "data.caption_key": "data sets may lack the field in any of their samples",
}


def type_of(hint: Any) -> Any:
    """The type that a key's values have, apart from null; a list or dict without its elements."""
    if get_origin(hint) in (list, dict):
        return get_origin(hint)
    (first, *_) = [a for a in get_args(hint) if a is not type(None)] or [hint]
    return get_origin(first) or first


ALL = [*walk(), *walk(Scorer, "scorers.look.")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shard."""
    folder = tmp_path_factory.mktemp("planted")
    write_shards(folder / "set", 1, 2, side=128, plain=True)
    return folder


def planted(place: Path, key: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """What launch says to a user's preset, or primary configuration, with this value of a key."""
    section, _, leaf = key.partition(".")
    words = [f"data.shards={place}/set/*.tar", "dry_run=true", "engine=fake", "output.dir=run"]
    folder, content = place / "conf" / section, {**PRESETS.get(section, {}), leaf: value}
    chosen = [f"{section}=site", f"--config-dir={place}/conf"]
    if section not in PRESETS:
        folder, content = place / "conf", {"defaults": ["config", "_self_"]}
        inner = content
        for name in key.split(".")[:-1]:
            inner = inner.setdefault(name, {})  # type: ignore[call-overload]
        inner[key.rpartition(".")[2]] = value
        chosen = ["--config-name=site", f"--config-dir={place}/conf"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(yaml.safe_dump(content))
    ours = {key, section if section in PRESETS else key}  # what the command line leaves to it
    words = [w for w in words if w.partition("=")[0] not in ours] + chosen
    monkeypatch.chdir(place)
    # Nothing is at output.dir, so a run of an earlier version is not looked for in vain.
    monkeypatch.setattr(earlier, "VERSIONS", ())
    with pytest.raises(UserError) as refused:
        launch(words)
    assert not (place / "run").exists()
    return str(refused.value)


def names(message: str, key: str) -> bool:
    return key in message.partition(" (in ")[0] and "\n" not in message


@pytest.mark.parametrize(("key", "hint"), [(key.name, key.type) for key in ALL])
def test_a_wrong_type(key: str, hint: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if type_of(hint) is Any:
        assert key in {name for name, _ in FURTHER} | {"scorers.look.size"}
        return
    value = WRONG[type_of(hint)][-1]
    assert names(planted(place, key, value, monkeypatch), key)


@pytest.mark.parametrize(("key", "value"), FURTHER)
def test_a_wrong_value(key: str, value: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(planted(place, key, value, monkeypatch), key)


def test_a_list_inside_a_free_mapping_is_not_the_mistake(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "model", {**PRESETS["model"], "processor": {"crop": [1, 2]}})
    assert planted(place, "model.engine", ["a"], monkeypatch).startswith("model.engine: ")


@pytest.mark.parametrize("section", [f.name for f in dataclasses.fields(Config)])
def test_an_unknown_name(section: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(key.name for key in ALL if key.name.split(".")[0] == section)
    message = planted(place, f"{first}x", 1, monkeypatch)
    assert names(message, f"{first}x")
    assert "no such key" in message


def test_an_unknown_name_beside_every_key() -> None:
    for key in (key.name for key in ALL):
        with pytest.raises(UserError, match="no such key") as refused:
            check_key(f"{key}x")
        assert names(str(refused.value), f"{key}x")


def test_every_limit_and_choice() -> None:
    whole = compose_config(["data.shards=/d/x.tar", "data.name=x", "output.dir=/d/run"])
    OmegaConf.set_struct(whole, False)
    tried = 0
    for key, limits in ((key.name, key.metadata) for key in ALL):
        beyond = [limits["low"] - 1] if "low" in limits else []
        beyond += [limits["high"] + 1] if limits.get("high") is not None else []
        beyond += ["nosuch"] if "choices" in limits else []
        for value in beyond:
            cfg = copy.deepcopy(whole)
            OmegaConf.update(cfg, stored_key(key), value)
            with pytest.raises(UserError) as refused:
                to_config(cfg)
            assert names(str(refused.value), key), refused.value
            tried += 1
    assert tried > 80


def test_keys_whose_values_cannot_be_known() -> None:
    """Every path is tried with a wrong value, or it is said why that cannot be."""
    texts = {
        key.name
        for key in ALL
        if type_of(key.type) is str and "choices" not in key.metadata and key.metadata.get("path")
    }
    there = {key.name for key in ALL}
    assert set(CANNOT_BE_KNOWN) <= there
    known = {key for key, _ in FURTHER} | set(CANNOT_BE_KNOWN)
    assert sorted(texts - known) == []
