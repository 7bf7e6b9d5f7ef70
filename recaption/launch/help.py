"""The launcher's `--help` and README's table of keys, both made from the schema."""

from __future__ import annotations

import textwrap

from recaption.config.compose import conf_dir
from recaption.config.overrides import GROUPS
from recaption.config.walk import documented

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


def launch_help() -> str:
    """The text of `recaption.launch --help`."""
    lines = [USAGE, "presets:"]
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
