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
from typing import Any, get_args, get_origin, get_type_hints

from recaption.config.onnx import Scorer
from recaption.config.renamed import RENAMED, both, warn_of
from recaption.config.schema import Config
from recaption.errors import UserError, bad_key

GROUPS = frozenset({"data", "model", "prompt", "engine", "slurm", "watermark", "output"})
NULL, SWITCHES = "null", ("true", "false")
# a value in quotes, without such quotes inside
WHOLE = re.compile(r"""(['"])(?:(?!\1).)*\1""", re.DOTALL)
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
        if twice == key:
            raise UserError(
                f"{key}: given twice (in a shell, quote values with braces or globs: '{key}=…', "
                "since an unquoted brace becomes several words)"
            )
        if twice:
            raise both(twice if twice in RENAMED else key)
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
    """Find a dotted key in the schema; raises UserError if there is no such key."""
    node: Any = Config
    path = ""
    metadata: Mapping[str, Any] = {}
    parts = stored_key(key).split(".")
    if parts[0] == "scorers" and len(parts) > 2:
        if len(parts) > 3 or parts[2] not in get_type_hints(Scorer):
            raise bad_key(key, (f.rstrip("_") for f in get_type_hints(Scorer)))
        return Place(_metadata(Scorer, parts[2]), mapping=True, inside=True)
    for part in parts:
        if get_origin(node) is dict or node is dict:
            return Place(metadata, mapping=True, inside=True)
        fields = get_type_hints(node) if dataclasses.is_dataclass(node) else {}
        path = f"{path}.{part}" if path else part
        if part not in fields:
            raise bad_key(path, (f.rstrip("_") for f in fields))
        metadata = _metadata(node, part)
        node = next((a for a in get_args(fields[part]) if get_origin(a) is dict), fields[part])
    if dataclasses.is_dataclass(node) and key not in GROUPS:
        raise UserError(
            f"{key}: is a section, set one of its keys: {', '.join(get_type_hints(node))}"
        )
    return Place(metadata, mapping=get_origin(node) is dict)


def _metadata(node: Any, name: str) -> Mapping[str, Any]:
    return next(f.metadata for f in dataclasses.fields(node) if f.name == name)
