"""Checks of a resolved configuration beyond its types: choices, bounds, combinations."""

from __future__ import annotations

import os
import re
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from recaption.config.onnx import IMAGENET_MEAN
from recaption.config.schema import FLAGS, FORMATS, HARMLESS, Config, Data, Model
from recaption.config.schema_walk import walk
from recaption.errors import bad_choice, bad_value

MAX_MINUTES = 30 * 24 * 60
MAX_GPUS = 64
BUILTIN = "builtin:"  # prefix of the path of a model inside the package
TEMPLATES_OWN = (  # what a chat template is given by those who apply it
    "messages",
    "chat_template",
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
)
POISONS = ("crash", "hang", "error", "refuse", "cut")
GPUS = re.compile(r"(?:[A-Za-z0-9][\w.+-]*:)?\d+", re.ASCII)
TIME = re.compile(r"(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?|()(\d+):(\d+):(\d+)", re.ASCII)
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def check(config: Config) -> None:
    """Raise UserError for the first key whose value is not valid."""
    _check_values(config, "")
    for key in ("model.name", "prompt.name", "data.name"):
        section, leaf = key.split(".")
        value = getattr(getattr(config, section), leaf)
        if value is not None and not NAME.fullmatch(value):
            raise bad_value(
                key, value, "use letters, digits and . _ + - (it becomes a folder name)"
            )
    _check_model(config.model)
    check_folder("output.dir", config.output.dir)
    if not LICENSE.fullmatch(config.output.license):
        reason = "an identifier as the Hub has it, such as cc-by-4.0, apache-2.0 or other"
        raise bad_value("output.license", config.output.license, reason)
    background = config.image.background
    if len(background) != 3 or not all(0 <= v <= 255 for v in background):
        raise bad_value("image.background", background, "three numbers of 0 to 255")
    if not config.data.image_keys:
        raise bad_value("data.image_keys", "[]", "at least one extension is needed")
    if not all(name.strip(".") for name in config.data.image_keys):
        raise bad_value("data.image_keys", config.data.image_keys, "one of them is empty")
    if not config.image.formats:
        raise bad_value("image.formats", "[]", f"at least one of {', '.join(FORMATS)} is needed")
    for name in config.image.formats:
        if name not in FORMATS:
            raise bad_choice("image.formats", name, FORMATS)
    for key, scorer in (("watermark", config.watermark), *config.scorers.items()):
        prefix = key if scorer is config.watermark else f"scorers.{key}"
        _check_values(scorer, f"{prefix}.")
        scorer.size = _size(f"{prefix}.size", scorer.size)
        for leaf, values in (("mean", scorer.mean), ("std", scorer.std)):
            if len(values) != 3 or (leaf == "std" and min(values) <= 0):
                raise bad_value(f"{prefix}.{leaf}", values, "three numbers, std above 0")
        if scorer.scale != 255 and scorer.mean == IMAGENET_MEAN:
            reason = f"needs {prefix}.mean and {prefix}.std, which are those of a scale of 255"
            raise bad_value(f"{prefix}.scale", f"{scorer.scale:g}", reason)
    for text, poison in config.engine.poison.items():
        if poison not in POISONS and not re.fullmatch(
            r"say .*|wait \d+(\.\d+)?", poison, re.DOTALL
        ):
            valid = f"valid values are {', '.join(POISONS)}, wait SECONDS, or say TEXT"
            raise bad_value(f"engine.poison.{text}", poison, valid)
    for leaf in ("flags", "bad"):
        for flag in getattr(config.quality, leaf):
            if flag not in FLAGS:
                raise bad_choice(f"quality.{leaf}", flag, FLAGS)
    for flag in HARMLESS:
        if flag in config.quality.bad:
            raise bad_value("quality.bad", flag, "asking again would not change it")
    config.data.text_key = _text_key(config.data)
    config.slurm.time = minutes(config.slurm.time)
    config.slurm.gpus = _gpus(config.slurm.gpus)


def _check_model(model: Model) -> None:
    for name in model.chat_template_kwargs:
        if name in TEMPLATES_OWN:
            key = f"model.chat_template_kwargs.{name}"
            raise bad_value(key, model.chat_template_kwargs[name], "recaption sets it")
    try:
        named = model.vllm is None or len(SpecifierSet(model.vllm))
    except InvalidSpecifier:
        named = 0
    if not named:
        raise bad_value(
            "model.vllm", model.vllm, "a range of versions, such as >=0.33 or >=0.30,<0.33"
        )


def _text_key(data: Data) -> str:
    """data.text_key in lower case and without a dot."""
    found = data.text_key.lower().removeprefix(".")
    if found and found in data.image_keys:
        reason = "is the extension of a picture too, see data.image_keys"
        raise bad_value("data.text_key", data.text_key, reason)
    if not found or found == "json":
        reason = "the extension of a text, such as txt; data.caption_key names a field of the .json"
        raise bad_value("data.text_key", data.text_key, reason)
    return found


def _size(key: str, value: Any) -> list[int] | None:
    """[height, width], from such a list or from one number for both."""
    if value is None:
        return None
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(type(n) is int and 1 <= n <= 4096 for n in sides):
        raise bad_value(key, value, "a side of 1 to 4096 pixels, or [height,width]")
    return sides


def check_folder(key: str, value: str) -> None:
    """Raise UserError for a URL: a run directory is always a local folder."""
    if URL.match(value):
        local = "must be a folder here; recaption.upload copies a run to s3:// and hf://"
        raise bad_value(key, value, local)


def minutes(value: Any) -> int | None:
    """Slurm's walltime as whole minutes, from minutes, `HH:MM:SS`, `D-HH` or `D-HH:MM[:SS]`."""
    if value is None:
        return None
    text = str(value).strip("'\"")
    if re.fullmatch(r"\d+:\d+", text):
        first, second = text.split(":")
        both = (
            f"sbatch reads {first} minutes and {second} seconds, not {first} hours and {second} "
            f"minutes; write 00:{text}, {text}:00, or minutes"
        )
        raise bad_value("slurm.time", text, both)
    found = TIME.fullmatch(text)
    if found:
        parts = found.groups()[:4] if found[1] else found.groups()[4:]
        days, hours, mins, seconds = (int(part or 0) for part in parts)
        value = days * 1440 + hours * 60 + mins + (seconds + 59) // 60
    elif text.isdecimal() and text.isascii() and not isinstance(value, bool):
        value = int(text)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        valid = "minutes, or a time as HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"
        raise bad_value("slurm.time", value, valid)
    if value > MAX_MINUTES:
        raise bad_value("slurm.time", text, "more than 30 days; a number is minutes, see HH:MM:SS")
    return value


def _gpus(value: Any) -> int | str | None:
    """slurm.gpus as a number, or as TYPE:N if a type was given."""
    if value is None:
        return None
    text = str(value)
    valid = not isinstance(value, bool) and GPUS.fullmatch(text)
    if not valid or gpu_count(text) > MAX_GPUS:
        choices = f"a number of 0 to {MAX_GPUS}, or TYPE:N, such as a100:4"
        raise bad_value("slurm.gpus", value, choices)
    return int(text) if text.isdecimal() else text


def gpu_count(gpus: int | str) -> int:
    """How many GPUs a value of slurm.gpus asks for."""
    return int(str(gpus).rpartition(":")[2])


def _check_values(node: Any, prefix: str) -> None:
    """Types within lists, choices and bounds of every key; paths become absolute."""
    for key in walk(type(node), prefix):
        name, owner, limits = key.name, key.owner(node), key.metadata
        value = getattr(owner, key.field.name)
        if limits.get("path"):
            setattr(owner, key.field.name, _path(name, value))
        elif value is None:
            continue
        elif isinstance(value, list) and any(isinstance(v, list | dict) for v in value):
            raise bad_value(name, value, "its elements have to be plain values")
        elif any(v != v for v in (value if isinstance(value, list) else [value])):
            raise bad_value(name, value, "a number is needed")
        elif "choices" in limits and value not in limits["choices"]:
            raise bad_choice(name, value, limits["choices"])
        elif "low" in limits:
            low, high = limits["low"], limits.get("high")
            if value < low or (high is not None and value > high):
                upper = f" and at most {high}" if high is not None else ""
                raise bad_value(name, value, f"must be at least {low}{upper}")


def _path(key: str, value: Any) -> Any:
    """A path, or a mapping of names to paths, absolute, with `~` as the home folder."""
    if isinstance(value, dict):
        return {name: _path(f"{key}.{name}", path) for name, path in value.items()}
    if value is None:
        return None
    if not value:
        raise bad_value(key, "", "a path is needed, or null for none")
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise bad_value(key, value, "there is no such user; a folder of that name is ./~…")
    elsewhere = path.startswith(BUILTIN) or URL.match(path)
    return path if elsewhere else os.path.join(os.getcwd(), path)
