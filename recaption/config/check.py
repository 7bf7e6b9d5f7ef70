"""Checks of a resolved configuration beyond its types: choices, bounds, combinations."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from recaption.config.schema import FLAGS, Config
from recaption.errors import bad_choice, bad_value

MAX_MINUTES = 30 * 24 * 60
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def check(config: Config) -> None:
    """Raise UserError for the first key whose value is not valid."""
    _walk(config, "")
    for key in ("model.name", "prompt.name", "data.name"):
        section, leaf = key.split(".")
        value = getattr(getattr(config, section), leaf)
        if value is not None and not NAME.fullmatch(value):
            raise bad_value(
                key, value, "use letters, digits and . _ + - (it becomes a folder name)"
            )
    if not config.output.dir:
        raise bad_value("output.dir", "", "must name a folder")
    if not LICENSE.fullmatch(config.output.license):
        reason = "an identifier as the Hub has it, such as cc-by-4.0, apache-2.0 or other"
        raise bad_value("output.license", config.output.license, reason)
    background = config.image.background
    if len(background) != 3 or not all(0 <= v <= 255 for v in background):
        raise bad_value("image.background", background, "three numbers of 0 to 255")
    if not config.data.image_keys:
        raise bad_value("data.image_keys", "[]", "at least one extension is needed")
    for key, scorer in (("watermark", config.watermark), *config.scorers.items()):
        prefix = key if scorer is config.watermark else f"scorers.{key}"
        _walk(scorer, f"{prefix}.")
        scorer.size = _size(f"{prefix}.size", scorer.size)
        for leaf, values in (("mean", scorer.mean), ("std", scorer.std)):
            if len(values) != 3 or (leaf == "std" and min(values) <= 0):
                raise bad_value(f"{prefix}.{leaf}", values, "three numbers, std above 0")
    for leaf in ("flags", "bad"):
        for flag in getattr(config.quality, leaf):
            if flag not in FLAGS:
                raise bad_choice(f"quality.{leaf}", flag, FLAGS)
    config.slurm.time = minutes(config.slurm.time)


def _size(key: str, value: Any) -> list[int] | None:
    """[height, width] from a side or such a list."""
    if value is None:
        return None
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(type(n) is int and 1 <= n <= 4096 for n in sides):
        raise bad_value(key, value, "a side of 1 to 4096 pixels, or [height,width]")
    return sides


def minutes(value: Any) -> int | None:
    """Slurm's walltime as whole minutes, from minutes or `[D-]HH:MM[:SS]`.

    YAML 1.1 reads an unquoted 24:00:00 as the base-60 integer 86400; anything above 30 days is
    therefore refused with a hint.
    """
    if value is None:
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", value)
        if match:
            days, hours, mins, secs = (int(part or 0) for part in match.groups())
            value = days * 1440 + hours * 60 + mins + (secs > 0)
        elif value.isdigit():
            value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise bad_value("slurm.time", value, "minutes, or '[D-]HH:MM[:SS]' in quotes")
    if value > MAX_MINUTES:
        hint = "more than 30 days; it is in minutes, and HH:MM:SS must be quoted in YAML"
        raise bad_value("slurm.time", value, hint)
    return value


def _walk(node: Any, prefix: str) -> None:
    for f in dataclasses.fields(node):
        key, value = f"{prefix}{f.name.rstrip('_')}", getattr(node, f.name)
        if dataclasses.is_dataclass(value):
            _walk(value, f"{key}.")
        elif value is None:
            continue
        elif "choices" in f.metadata and value not in f.metadata["choices"]:
            raise bad_choice(key, value, f.metadata["choices"])
        elif "low" in f.metadata:
            low, high = f.metadata["low"], f.metadata.get("high")
            if value < low or (high is not None and value > high) or value != value:
                upper = f" and at most {high}" if high is not None else ""
                raise bad_value(key, value, f"must be at least {low}{upper}")
