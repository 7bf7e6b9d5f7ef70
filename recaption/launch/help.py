"""The launcher's `--help` and README's table of keys, both made from the schema."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from omegaconf import MISSING

from recaption.config.compose import conf_dir
from recaption.config.overrides import GROUPS
from recaption.config.schema import Config

INDENT = " " * 6
USAGE = """\
usage: python -m recaption.launch KEY=VALUE … [options]

Recaptions WebDataset shards: on this machine (slurm=local, the default) or as a Slurm array.

  python -m recaption.launch data.shards='/data/{00000..00007}.tar'          the tiny model, here
  python -m recaption.launch data.shards='/data/*.tar' model=qwen2.5-vl-7b prompt=detailed
  python -m recaption.launch … slurm=cluster slurm.tasks=32 slurm.partition=gpu
  python -m recaption.launch -m … prompt=short,detailed model=qwen3-vl-2b,qwen3-vl-4b
  python -m recaption.launch … dry_run=true                                  what would happen

Give the same command again to go on with an unfinished run; for a finished run it does nothing.

options:
  -m, --multirun       sweep: make one run per combination of comma-separated values
  --cfg job            print the composed configuration (--resolve fills in references)
  --config-dir DIR     also use presets of your own in DIR, such as DIR/slurm/mysite.yaml
  --config-name NAME   use another primary configuration than `config`
"""


@dataclasses.dataclass(frozen=True)
class Key:
    """One documented key."""

    name: str
    default: str
    doc: str


def launch_help() -> str:
    """The text of `recaption.launch --help`."""
    lines = [USAGE, "presets:"]
    for group in sorted(GROUPS):
        lines.append(f"  {group + '=':13}{', '.join(presets(group))}")
    section = None
    for item in keys():
        head = item.name.rpartition(".")[0]
        if head != section:
            section = head
            lines.append(f"\n{head or 'launch'}:")
        lines.append(f"  {item.name}={item.default}")
        lines += textwrap.wrap(item.doc, 96, initial_indent=INDENT, subsequent_indent=INDENT)
    return "\n".join(lines) + "\n"


def presets(group: str) -> list[str]:
    """Names of a configuration group's presets."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def keys(node: type[Any] = Config, prefix: str = "") -> Iterator[Key]:
    """Every key of the schema with its documentation, in the schema's order."""
    hints = typing.get_type_hints(node)
    for f in dataclasses.fields(node):
        name = f"{prefix}{f.name.rstrip('_')}"
        if dataclasses.is_dataclass(hints[f.name]):
            yield from keys(typing.cast(type[Any], hints[f.name]), f"{name}.")
        elif f.name != "kind":
            yield Key(name, _default(f), _doc(f))


def _doc(f: dataclasses.Field[Any]) -> str:
    """A field's documentation, with its valid values where the text does not name them all."""
    doc: str = f.metadata["doc"]
    choices = [choice for choice in f.metadata.get("choices", ()) if choice]
    told = all(choice in doc for choice in choices)
    return doc if told else f"{doc} One of {', '.join(choices)}."


def _default(f: dataclasses.Field[Any]) -> str:
    value = f.default_factory() if callable(f.default_factory) else f.default
    if value is MISSING or value == MISSING:
        return "…"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value) if value != "" else "''"
