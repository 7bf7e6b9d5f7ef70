"""The keys in `--help` of the launcher, and README's table of keys, both from the schema."""

from __future__ import annotations

import textwrap

from recaption.config.compose import conf_dir
from recaption.config.overrides import GROUPS
from recaption.config.schema_walk import documented

INDENT = " " * 6


def keys_help() -> str:
    """What `recaption.launch --help` says of presets and keys."""
    lines = ["presets:"]
    for group in sorted(GROUPS):
        lines.append(f"  {group + '=':13}{', '.join(presets(group))}")
    section = None
    for item in documented():
        if item.section != section:
            section = item.section
            lines.append(f"\n{section or 'launch'}:")
        lines.append(f"  {item.name}={item.default}")
        lines += textwrap.wrap(item.doc, 96, initial_indent=INDENT, subsequent_indent=INDENT)
    return "\n".join(lines) + "\n"


def presets(group: str) -> list[str]:
    """Names of a configuration group's presets."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
