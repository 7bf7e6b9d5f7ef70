"""A sample's `.txt` and `.json`: how they are read and what is written instead."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Mapping
from typing import Any

OWN_FIELDS = ("caption", "caption_original", "watermark_score")
MARKS = {  # byte order marks, longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def decode(content: bytes) -> str:
    """Text in the encoding of its byte order mark, else in UTF-8; invalid bytes become U+FFFD."""
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding, "replace")


def parse_json(content: bytes) -> dict[str, Any]:
    """The fields of a sample's `.json`; a value that is no object is kept as `source_json`.

    It may be in UTF-8, UTF-16 or UTF-32, with a byte order mark or without, hold raw control
    characters in its texts, and be filled up with zero bytes.
    """
    text = content.decode(json.detect_encoding(content), "replace").rstrip("\0")
    return json_fields(text, strict=False)


def json_fields(text: str, *, strict: bool) -> dict[str, Any]:
    """The fields of a JSON object, or `source_json`.

    NaN and infinities, which some writers produce though JSON does not allow them, become null.
    """
    try:
        value = json.loads(text, strict=strict, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"source_json": text}


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def lookup(fields: Mapping[str, Any], path: str) -> Any:
    """The value of a field; `A.B` is a field of that name, or else the field B inside A.

    None if there is none.
    """
    if path in fields:
        return fields[path]
    for at in (i for i in range(len(path) - 1, 0, -1) if path[i] == "."):
        inner = fields.get(path[:at])
        if isinstance(inner, Mapping) and (found := lookup(inner, path[at + 1 :])) is not None:
            return found
    return None


def clean(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def merge_json(source: Mapping[str, Any], own: Mapping[str, Any]) -> bytes:
    """The source's fields and ours; a source field with a name of ours becomes source_NAME."""
    moved = {
        _free_name(name, source) if _is_own(name, own) else name: v for name, v in source.items()
    }
    merged = {**moved, **own}
    try:
        return json.dumps(merged, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(merged).encode()


def _is_own(name: str, own: Mapping[str, Any]) -> bool:
    return name in own or name in OWN_FIELDS or name.startswith("recaption_")


def _free_name(name: str, source: Mapping[str, Any]) -> str:
    moved = f"source_{name}"
    while moved in source:
        moved = f"source_{moved}"
    return moved
