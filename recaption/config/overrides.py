"""Prepares the command line's KEY=VALUE words for Hydra's parser.

The values of keys that the schema calls `literal` reach the configuration exactly as the shell
passed them: braces, commas, `=`, quotes and `${` have no special meaning. The same holds for keys
that it calls `path` or `text`, except that `${KEY}` is a reference and commas separate the values
of a sweep. All other values follow Hydra's grammar.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from recaption.config.onnx import Scorer
from recaption.config.renamed import RENAMED, both, warn_of
from recaption.config.schema_walk import walk
from recaption.errors import UserError, bad_key

GROUPS = frozenset({"data", "model", "prompt", "engine", "slurm", "watermark", "output"})
NULL, SWITCHES = "null", ("true", "false")
# a value in quotes, without such quotes inside
WHOLE = re.compile(r"""(['"])(?:(?!\1).)*\1""", re.DOTALL)
KEYS = {name: key for key in walk() for name in (".".join(key.path), key.name)}
SCORER = {name: key for key in walk(Scorer) for name in (*key.path, key.name)}
BRACKETS = {**dict.fromkeys("([{", 1), **dict.fromkeys(")]}", -1)}


@dataclasses.dataclass(frozen=True)
class Place:
    """What the schema says of a key: its field's metadata, and whether it is a free mapping."""

    metadata: Mapping[str, Any]
    mapping: bool = False
    inside: bool = False  # an entry of the mapping, not the mapping as a whole


def prepare(words: Iterable[str], *, sweep: bool = False) -> list[str]:
    """Check keys, and quote the values that Hydra should not interpret.

    With `sweep`, commas separate the values of different points.

    Old names of keys become today's. Raises UserError for a word without `=`, an unknown key, or a
    key given twice.
    """
    seen: dict[str, str] = {}  # key → as it was given
    prepared = []
    for word in words:
        name, equals, value = word.partition("=")
        key = name.lstrip("+~")
        if not equals and not name.startswith("~"):
            raise UserError(f"{word}: expected KEY=VALUE (see --help)")
        twice, seen[stored_key(key)] = seen.get(stored_key(key)), key
        old = twice if twice in RENAMED else key
        if twice and twice != key and old in RENAMED:
            raise both(old)
        if twice:
            raise UserError(
                f"{key}: given twice (in a shell, quote values with braces or globs: '{key}=…', "
                "since an unquoted brace becomes several words)"
            )
        if key.startswith("hydra."):
            prepared.append(word)
            continue
        place = check_key(key)
        plain, key = key, stored_key(key)
        value = _taken(place, value, sweep=sweep)
        prefix = "++" if place.mapping and name == plain else name[: len(name) - len(plain)]
        prepared.append(f"{prefix}{key}={value}" if equals else f"{prefix}{key}")
    warn_of(key for key in seen.values() if key in RENAMED)
    return prepared


def _taken(place: Place, value: str, *, sweep: bool) -> str:
    """A value for Hydra's parser, in quotes if its key takes it literally."""
    kinds = place.metadata
    if place.mapping and not place.inside:
        return value
    if kinds.get("literal"):
        return value if value == NULL else quote(value)
    if not (kinds.get("path") or kinds.get("text")):
        return value
    bare = (NULL, *SWITCHES) if kinds.get("text") and place.inside else (NULL,)
    unquoted = sweep or bool(kinds.get("text"))  # 0.1.0 needed quotes around such values

    def taken(piece: str) -> str:
        if piece in bare:
            return piece
        return quote(piece[1:-1] if unquoted and WHOLE.fullmatch(piece) else piece, references=True)

    return ",".join(map(taken, _pieces(value) if sweep else [value]))


def _pieces(value: str) -> list[str]:
    """Split at commas, except for those inside brackets or quotes."""
    pieces, depth, position = [""], 0, 0
    while position < len(value):
        quoted = WHOLE.match(value, position) if not pieces[-1] else None
        step = quoted[0] if quoted and value[quoted.end() :][:1] in ("", ",") else value[position]
        depth += BRACKETS.get(step, 0)
        if step == "," and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += step
        position += len(step)
    return pieces


def quote(value: str, *, references: bool = False) -> str:
    """A quoted string that Hydra and OmegaConf read as exactly `value`.

    With `references`, `${KEY}` in it is replaced by the value of KEY.
    """
    if not references:
        value = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", value)
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{value}'"


def empties(word: str) -> bool:
    """Whether a prepared word empties a free mapping: KEY={}."""
    return word.endswith("={}") and check_key(word.removesuffix("={}").lstrip("+")).mapping


def stored_key(key: str) -> str:
    """A key as the schema spells it, by today's name; `class`, a Python keyword, is class_ there."""
    key = RENAMED.get(key, key)
    scorer = key.startswith(("watermark.", "scorers.")) and key.endswith(".class")
    return f"{key}_" if scorer else key


def check_key(key: str) -> Place:
    """Find a key in the schema by its name, or an earlier one; UserError if there is no such key."""
    parts = RENAMED.get(key, key).split(".")
    if parts[0] == "scorers" and len(parts) > 2:
        found = SCORER.get(".".join(parts[2:]))
        if found is None:
            raise bad_key(key, (k.name for k in walk(Scorer)))
        return Place(found.metadata, mapping=True, inside=True)
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if name in KEYS:
            inside, found = end < len(parts), KEYS[name]
            if inside and not found.mapping:
                raise bad_key(".".join(parts[: end + 1]), ())
            return Place(found.metadata, found.mapping, inside)
        if not _below(name):
            raise bad_key(name, _below(".".join(parts[: end - 1])))
    if key not in GROUPS:
        raise UserError(f"{key}: is a section, set one of its keys: {', '.join(_below(key))}")
    return Place({})


def _below(section: str) -> list[str]:
    """What may follow the name of a section, or begin a key, where that is empty."""
    start = f"{section}." if section else ""
    names = (key.name for key in KEYS.values() if key.name.startswith(start))
    return list(dict.fromkeys(name.removeprefix(start).split(".")[0] for name in names))
