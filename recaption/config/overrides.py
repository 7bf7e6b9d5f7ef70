"""The command line's KEY=VALUE words, made fit for Hydra's parser.

Values of the literal keys reach the configuration exactly as the shell passed them: braces,
commas, `=`, quotes and `${` mean nothing there. Everything else is Hydra's own grammar.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin, get_type_hints

from recaption.config.schema import Config, Scorer
from recaption.errors import UserError, bad_key

LITERAL = frozenset({"data.shards", "data.range", "prompt.text", "prompt.system"})
GROUPS = frozenset({"data", "model", "prompt", "engine", "slurm", "watermark", "output"})


def prepare(words: Iterable[str]) -> list[str]:
    """Check keys and quote literal values.

    Raises UserError for a word without `=`, an unknown key, or a key given twice.
    """
    seen: set[str] = set()
    prepared = []
    for word in words:
        name, equals, value = word.partition("=")
        key = name.lstrip("+~")
        if not equals and not name.startswith("~"):
            raise UserError(f"{word}: expected KEY=VALUE (see --help)")
        if key in seen:
            raise UserError(
                f"{key}: given twice (in a shell, quote values with braces or globs: '{key}=…', "
                "since an unquoted brace becomes several words)"
            )
        seen.add(key)
        if key.startswith("hydra."):
            prepared.append(word)
            continue
        inside_mapping = check_key(key)
        plain, key = key, stored_key(key)
        if key in LITERAL and value != "null":
            value = quote(value)
        prefix = "++" if inside_mapping and name == plain else name[: len(name) - len(plain)]
        prepared.append(f"{prefix}{key}={value}" if equals else f"{prefix}{key}")
    return prepared


def quote(value: str) -> str:
    """`value` as a Hydra quoted string that OmegaConf resolves to exactly `value`."""
    value = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", value)
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{value}'"


def stored_key(key: str) -> str:
    """A key as the schema spells it: `class`, a word of Python, is class_ there."""
    scorer = key.startswith(("watermark.", "scorers.")) and key.endswith(".class")
    return f"{key}_" if scorer else key


def check_key(key: str) -> bool:
    """Walk the schema along a dotted key; return whether it ends at or inside a free mapping."""
    node: Any = Config
    path = ""
    parts = stored_key(key).split(".")
    if parts[0] == "scorers" and len(parts) > 2:
        if len(parts) > 3 or parts[2] not in get_type_hints(Scorer):
            raise bad_key(key, (f.rstrip("_") for f in get_type_hints(Scorer)))
        return True
    for part in parts:
        if get_origin(node) is dict or node is dict:
            return True
        fields = get_type_hints(node) if dataclasses.is_dataclass(node) else {}
        path = f"{path}.{part}" if path else part
        if part not in fields:
            raise bad_key(path, (f.rstrip("_") for f in fields))
        node = next((a for a in get_args(fields[part]) if get_origin(a) is dict), fields[part])
    if dataclasses.is_dataclass(node) and key not in GROUPS:
        raise UserError(
            f"{key}: is a section, set one of its keys: {', '.join(get_type_hints(node))}"
        )
    return get_origin(node) is dict
