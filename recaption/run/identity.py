"""A run's fingerprint: everything that shapes its captions and shards, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from recaption.config.onnx import Scorer
from recaption.config.schema import Config, Prompt
from recaption.config.scorers import all_scorers, class_of, section
from recaption.errors import bad_value
from recaption.run.addresses import public
from recaption.run.digest import sha256_of

FREE_IMAGE_KEYS = {"decode_seconds", "decode_mb"}
DATA_KEYS = ("max_samples", "order", "image_keys", "text_key", "caption_key")
FREED = ("data.damaged",)  # keys that only 0.1.0 had in the fingerprint
MODEL_KEYS = (
    "name",
    "max_pixels",
    "min_side",
    "max_model_len",
    "load_format",
    "dtype",
    "quantization",
    "chat_template_kwargs",
    "processor",
    "engine",
)


def identity(
    config: Config, prompts: Sequence[Prompt], model_files: str, urls: Sequence[str]
) -> dict[str, Any]:
    """All that the fingerprint covers, as a flat mapping of keys to values.

    A key that 0.1.0 lacked is left out while it has 0.1.0's value, so that runs keep their identity.
    """
    covered = _section("model", config.model, MODEL_KEYS)
    covered["model.files"] = model_files
    template = config.model.chat_template
    covered["model.chat_template"] = _file_hash("model.chat_template", template)
    for prompt in prompts:
        prefix = "prompt" if len(prompts) == 1 else f"prompts.{prompt.name}"
        covered |= _section(prefix, prompt)
    if len(prompts) > 1:
        covered["prompts"] = [p.name for p in prompts]
    covered |= _section("sampling", config.sampling)
    covered |= _section("quality", config.quality)
    image = (f.name for f in fields(config.image) if f.name not in FREE_IMAGE_KEYS)
    covered |= _section("image", config.image, image)
    covered |= _section("data", config.data, DATA_KEYS)
    covered |= {
        "data.shards": _list_hash(list(map(public, urls))),
        "engine": config.engine.kind,
        "output.text": config.output.text,
        "output.mode": config.output.mode,
        "watermark": config.watermark.kind,
        "scorers": sorted(config.scorers),
    }
    for name, scorer in all_scorers(config).items():
        covered |= _scorer(section(name), scorer)
    return covered


def as_frozen(
    covered: dict[str, Any], frozen: dict[str, Any], *, same_inputs: bool
) -> dict[str, Any]:
    """An identity adapted to a run's record, so that the two can be compared.

    It takes over the record's values of keys that may change by now, and, if the inputs are the same,
    its hash of the inputs, for which 0.1.0 used whole URLs.
    """
    kept = (*FREED, "data.shards") if same_inputs else FREED
    return covered | {key: frozen[key] for key in kept if key in frozen}


def _section(prefix: str, node: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The keys of a section, or some of them, without later keys that have 0.1.0's value."""
    known = {f.name: f.metadata for f in fields(node)}
    values = asdict(node)
    return {
        f"{prefix}.{name}": values[name]
        for name in (known if names is None else names)
        if "was" not in known[name] or values[name] != known[name]["was"]
    }


def _scorer(key: str, scorer: Scorer) -> dict[str, Any]:
    """The keys that shape a scorer's scores, and its threshold if it decides about pictures."""
    covered: dict[str, Any] = {
        f"{key}.model": _file_hash(f"{key}.path", scorer.path),
        f"{key}.output": [scorer.kind, class_of(scorer) if scorer.kind == "softmax" else 0],
        f"{key}.input": [scorer.size, scorer.mean, scorer.std, scorer.resampling],
        f"{key}.action": scorer.action,
    }
    if scorer.action != "score":
        covered[f"{key}.threshold"] = scorer.threshold
    if scorer.kind != "softmax" and scorer.class_ is not None:
        covered[f"{key}.class"] = scorer.class_
    later = (f.name for f in fields(scorer) if "was" in f.metadata)
    return covered | _section(key, scorer, later)


def fingerprint(covered: dict[str, Any]) -> str:
    canonical = json.dumps(covered, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(frozen: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Keys in which two identities differ, each with both values, shortened."""
    keys = sorted(k for k in {*frozen, *wanted} if frozen.get(k) != wanted.get(k))
    return [f"{k} (was {_short(frozen.get(k))}, now {_short(wanted.get(k))})" for k in keys]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _list_hash(urls: Sequence[str]) -> str:
    return f"{len(urls)} shards, sha256 {hashlib.sha256(chr(10).join(urls).encode()).hexdigest()}"


def _file_hash(key: str, path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return f"sha256 {sha256_of(Path(path))}"
    except OSError as e:
        raise bad_value(key, path, f"cannot be read: {e.strerror}") from None
