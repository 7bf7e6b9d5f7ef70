"""Combinations of keys that are refused for a new run; for an existing run they are warnings.

A key that is meant to shape captions or scores is refused if it is named on the command line and
has no effect together with the other keys. Keys that say where, how fast or how safely the work is
done are always accepted, and so are the keys that presets set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recaption.config.overrides import WHOLE, check_key
from recaption.config.sbatch_options import taken_options
from recaption.config.schema import Config, Prompt
from recaption.config.schema_walk import walk
from recaption.config.vllm_arguments import KEYS


@dataclass(frozen=True)
class Idle:
    """Keys that have no effect if `when` holds, and the reason, for the message."""

    keys: tuple[str, ...]  # a name that ends in a dot stands for all keys below it
    when: Callable[[Config], bool]
    why: str


def _unchecked(flag: str) -> Callable[[Config], bool]:
    return lambda c: flag not in c.quality.flags


def _greedy(c: Config) -> bool:
    """Whether every token is the likeliest one, in retries too."""
    hotter = c.quality.retries > 0 and c.quality.temperature_step > 0
    return c.sampling.temperature == 0 and not hotter


MEMORY = re.compile(r"\d+([KMGTP]i?B?)?", re.ASCII | re.IGNORECASE)
VLLMS_OWN = tuple(f"model.{k}" for k in "processor engine dtype quantization load_format".split())
VLLMS_OWN += ("model.chat_template", "model.trust_remote_code", "model.max_model_len", "sampling.")
SLURMS_OWN = "partition account qos constraint exclude setup python srun_args additional".split()
IDLE = (
    Idle(("watermark.",), lambda c: c.watermark.kind == "off", "needs watermark=onnx"),
    Idle(
        ("watermark.threshold",),
        lambda c: c.watermark.action == "score",
        "decides nothing with watermark.action=score; see watermark.action=drop",
    ),
    Idle(
        ("model.revision",),
        lambda c: c.model.path is not None,
        "is of a repository on the Hub, and the model is a folder (model.path)",
    ),
    Idle(
        ("sampling.top_p", "sampling.top_k", "sampling.min_p"),
        _greedy,
        "chooses nothing at sampling.temperature=0, where the likeliest token is taken",
    ),
    Idle(
        ("quality.temperature_step",),
        lambda c: c.quality.retries == 0,
        "is for retries, and quality.retries=0",
    ),
    Idle(
        ("quality.retries", "quality.action"),
        lambda c: not c.quality.bad,
        "acts on bad captions, and quality.bad=[] has no flag",
    ),
    Idle(
        ("quality.repeats", "quality.duplicated"),
        _unchecked("repetition"),
        "is for repetition, which quality.flags leaves out",
    ),
    Idle(
        ("quality.min_characters", "quality.min_words"),
        _unchecked("short"),
        "is for short, which quality.flags leaves out",
    ),
    Idle(
        ("quality.echo_words",), _unchecked("echo"), "is for echo, which quality.flags leaves out"
    ),
    Idle(
        ("quality.script", "quality.script_share"),
        _unchecked("script"),
        "is for script, which quality.flags leaves out",
    ),
    Idle(("quality.script_share",), lambda c: c.quality.script is None, "needs quality.script"),
    Idle(
        tuple(key.name for key in walk() if key.metadata.get("fake")),
        lambda c: c.engine.kind != "fake",
        "is the fake engine's: needs engine=fake",
    ),
    Idle(
        (*(f"slurm.{key}" for key in SLURMS_OWN), "slurm.additional."),
        lambda c: c.slurm.kind != "cluster",
        "is Slurm's, and all would run on this machine: add slurm=cluster",
    ),
)


def refusals(config: Config, prompts: Sequence[Prompt], named: Collection[str]) -> list[str]:
    """Why this configuration is refused for a new run, one message per reason; usually none.

    `named` holds the keys that the command line names, such as `model.revision`.
    """
    found = [
        f"{_shown(config, key)}: {idle.why}"
        for key in sorted(named)
        for idle in IDLE
        if any(key == k or (k.endswith(".") and key.startswith(k)) for k in idle.keys)
        if _value(config, key) not in (None, "", [], {}) and idle.when(config)
    ]
    found += _scorers(config, named)
    found += _paths(config, named)
    found += _lists(config, named)
    found += _unnamed_prompt(prompts, named)
    if config.slurm.mem is not None and not MEMORY.fullmatch(config.slurm.mem):
        found.append(f"slurm.mem={config.slurm.mem}: megabytes, or a number with K, M, G or T")
    found += [
        f"model.engine.{name}: {KEYS[name]} says it" for name in config.model.engine if name in KEYS
    ]
    return found + taken_options(config.slurm)


def remarks(config: Config, named: Collection[str]) -> list[str]:
    """Warnings about keys that are accepted but do less than one might expect."""
    found = []
    longest, room = config.sampling.max_tokens, config.model.max_model_len
    if longest >= room:
        found.append(
            f"sampling.max_tokens={longest}: model.max_model_len={room} has to hold picture, prompt "
            "and caption, so no caption can be so long"
        )
    if config.engine.kind == "fake":
        unread = [k.rstrip("_") for k in sorted(named) if k.startswith(VLLMS_OWN)]
        found += [f"engine=fake reads no {', '.join(unread)}"] if unread else []
    if config.slurm.kind != "cluster":
        limits = sorted({"slurm.time", "slurm.mem"} & set(named))
        found += [f"{_shown(config, key)}: limits nothing without slurm=cluster" for key in limits]
    return found


def _unnamed_prompt(prompts: Sequence[Prompt], named: Collection[str]) -> list[str]:
    """A new prompt text needs a name of its own, which labels its captions in rows and folders."""
    if "prompt.text" not in named or "prompt.name" in named:
        return []
    return [
        f"prompt.text: needs a prompt.name; without one its captions would be labeled "
        f"{prompts[0].name}, the name of a preset"
    ]


def _scorers(config: Config, named: Collection[str]) -> Iterator[str]:
    for name, scorer in config.scorers.items():
        key = f"scorers.{name}"
        if f"{key}.threshold" in named and scorer.action == "score":
            yield f"{key}.threshold: decides nothing with {key}.action=score; see drop, drop_below"


def _paths(config: Config, named: Collection[str]) -> Iterator[str]:
    if "%" in config.output.dir:
        yield f"output.dir={config.output.dir}: Slurm and submitit replace what follows a %"
    for key in sorted(named):
        value = _value(config, key)
        if isinstance(value, str) and check_key(key).metadata.get("path"):
            given = value.removeprefix(f"{os.getcwd()}/")
            if WHOLE.fullmatch(given):
                yield f"{key}={given}: the quotes would be part of the path; leave them out"


def _lists(config: Config, named: Collection[str]) -> Iterator[str]:
    plain = [name.lower().removeprefix(".") for name in config.data.image_keys]
    if plain != config.data.image_keys:
        right = f"[{','.join(dict.fromkeys(plain))}]"
        yield f"data.image_keys: extensions are in lower case and without a dot: {right}"
    off = [flag for flag in config.quality.bad if flag not in config.quality.flags]
    if off and "quality.bad" in named:
        yield f"quality.bad: {', '.join(off)}: not among the checks that are made (quality.flags)"


def _value(config: Config, key: str) -> Any:
    """The value of a key of the command line; None if it has none or is a whole group."""
    node: Any = asdict(config)
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return None if "." not in key else node


def _shown(config: Config, key: str) -> str:
    """KEY=VALUE, or KEY alone if the value is long or may hold a secret."""
    value = _value(config, key)
    plain = isinstance(value, str | int | float) and not key.startswith("slurm.additional")
    return f"{key.rstrip('_')}={value}" if plain else key.rstrip("_")
