"""Keys that earlier versions called otherwise: command lines, presets and records may still do so."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, make_dataclass
from typing import Any, cast, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf

from recaption.config.schema import Slurm, Task
from recaption.errors import UserError

RENAMED = {f"slurm.{f.name}": f"task.{f.name}" for f in fields(Task)}  # 0.1.0's name → today's
LEAVES = [f.name for f in fields(Task)]
REFERENCE = re.compile(rf"(?<!\\)\$\{{(slurm\.(?:{'|'.join(LEAVES)}))\}}")
_warned: set[str] = set()  # old names that this process has spoken of

_Older = make_dataclass(
    "_Older",
    [(name, kind, MISSING) for name, kind in get_type_hints(Task).items()],
    bases=(Slurm,),
    kw_only=True,
)


def warn_of(names: Iterable[str]) -> None:
    """Say on stderr, once in a process, what these old names are called now."""
    fresh = [name for name in names if name not in _warned]
    _warned.update(fresh)
    if fresh:
        now = ", ".join(f"{name} is now {RENAMED[name]}" for name in fresh)
        print(f"warning: {now}; the old name still works", file=sys.stderr)


def both(old: str) -> UserError:
    """The error for a key that is given by its old and by its new name."""
    return UserError(
        f"{old}: is now called {RENAMED[old]}, which is given too; give {RENAMED[old]} alone"
    )


def renamed_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that an earlier version has stored, by today's names."""
    slurm, task = dict(record["slurm"]), dict(record.get("task", {}))
    task |= {name: slurm.pop(name) for name in LEAVES if name in slurm}
    return {**record, "slurm": slurm, "task": task}


def accept_old(schema: DictConfig) -> DictConfig:
    """A schema for composing that takes old names, too, and shows what was given; see settle."""
    older = OmegaConf.structured(_Older)
    for name, value in cast("dict[str, Any]", OmegaConf.to_container(schema.slurm)).items():
        older[name] = value
    accepting = schema.copy()
    accepting.slurm = older
    for name in LEAVES:
        accepting.task[name] = MISSING
    return accepting


def settle(cfg: DictConfig, defaults: DictConfig, words: Iterable[str]) -> None:
    """Give what presets say by old names to today's, and what nobody says its default.

    Words of the command line win over presets; raises UserError for presets that say both.
    """
    named = {word.partition("=")[0].lstrip("+") for word in words}
    slurm = cast("dict[str, Any]", OmegaConf.to_container(cfg.slurm))
    given = {name: value for name in LEAVES if (value := slurm.pop(name)) != MISSING}
    for name in LEAVES:
        if OmegaConf.is_missing(cfg.task, name):
            cfg.task[name] = given.get(name, defaults.task[name])
        elif name in given and f"task.{name}" not in named:
            raise both(f"slurm.{name}")
    cfg.slurm = OmegaConf.structured(Slurm)
    for name, value in slurm.items():
        cfg.slurm[name] = value
    warn_of(dict.fromkeys([*(f"slurm.{name}" for name in given), *_refer(cfg)]))


def _refer(node: Any) -> Iterator[str]:
    """Let references to old names, which it yields, be references to today's."""
    plain: Any = OmegaConf.to_container(node)
    for place, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if isinstance(value, dict | list):
            yield from _refer(node[place])
        elif isinstance(value, str) and (old := REFERENCE.findall(value)):
            node[place] = REFERENCE.sub(lambda found: f"${{{RENAMED[found[1]]}}}", value)
            yield from old
