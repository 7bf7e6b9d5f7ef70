"""Checks the model's files, its chat template, and the ONNX models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from recaption.config.schema import Config, Model
from recaption.config.scorers import all_scorers
from recaption.doctor.check import Check, fail, ok, tried, warn
from recaption.model.files import model_folder
from recaption.model.hashing import WEIGHTS, hash_model
from recaption.model.hub import snapshot_here
from recaption.prepare.score import pin_scorers
from recaption.run.record import RULES

TEMPLATES = ("chat_template.jinja", "chat_template.json")
SHORT = 12  # characters of a hash that are shown


def check_files(config: Config) -> list[Check]:
    """Check, from this machine, the files that tasks read besides the shards."""
    found = []
    if config.engine.kind == "vllm":
        found += tried("model", lambda: _model(config.model))
    if all_scorers(config):
        found += tried("onnx", lambda: _onnx(config))
    return found


def folder_of(model: Model) -> Path | None:
    """The folder of a model's files; None if they are still to be downloaded."""
    return model_folder(model.path) if model.path else snapshot_here(model)


def _model(model: Model) -> Iterator[Check]:
    folder = folder_of(model)
    if folder is None:
        advice = "launch downloads it, which needs the network on this machine; or model.path"
        yield warn("model", f"{model.repo} is not in the cache", advice)
        return
    missing = [name for name in _named_weights(folder) if not (folder / name).exists()]
    bare = not any(path.suffix in WEIGHTS for path in folder.iterdir())
    if model.load_format != "dummy" and (missing or bare):
        what = f"lacks {missing[0]}" if missing else "has no weights"
        yield fail("model", f"{folder} {what}", f"remove {folder}, and launch again")
        return
    yield ok("model", f"{folder}, content {hash_model(folder, RULES)[:SHORT]}")
    yield _template(model, folder)


def _template(model: Model, folder: Path) -> Check:
    if model.chat_template:
        path = Path(model.chat_template).expanduser()
        if path.is_file():
            return ok("chat template", str(path))
        return fail("chat template", f"{path}: no such file", "model.chat_template=FILE.jinja")
    there = [name for name in TEMPLATES if (folder / name).is_file()]
    if there:
        return ok("chat template", there[0])
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and json.loads(settings.read_bytes()).get("chat_template"):
        return ok("chat template", settings.name)
    return fail("chat template", f"{folder} has none", "model.chat_template=FILE.jinja")


def _onnx(config: Config) -> Iterator[Check]:
    pin_scorers(config)
    for name, scorer in all_scorers(config).items():
        yield ok(f"onnx {name}", f"{scorer.path}, sha256 {(scorer.sha256 or '')[:SHORT]}")


def _named_weights(folder: Path) -> list[str]:
    """Files that the weights' index names."""
    names: set[str] = set()
    for index in folder.glob("model*.index.json"):
        names |= set(json.loads(index.read_text())["weight_map"].values())
    return sorted(names)
