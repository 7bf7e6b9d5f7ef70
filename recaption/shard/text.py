"""A sample's `.txt` and `.json`: the original caption, and what is written in their place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

OWN_FIELDS = ("caption", "caption_original", "watermark_score")


def decode(content: bytes | None) -> str:
    """UTF-8 text; bytes that are not become U+FFFD."""
    return (content or b"").decode("utf-8", "replace")


def parse_json(content: bytes | None) -> dict[str, Any]:
    """The fields of a sample's `.json`; one that is no object is kept as `source_json`.

    Numbers that JSON cannot hold (NaN, infinities), which some writers leave there, become null.
    """
    if content is None:
        return {}
    text = decode(content)
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"source_json": text}


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def original_caption(txt: bytes | None, fields: Mapping[str, Any], caption_key: str) -> str:
    """`.txt`, else the JSON's caption field, else the empty string."""
    if txt is not None:
        return decode(txt)
    value = fields.get(caption_key)
    return clean(value) if isinstance(value, str) else ""


def clean(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def merge_json(source: Mapping[str, Any], own: Mapping[str, Any]) -> bytes:
    """The source's fields, then ours; a source field that has a name of ours moves to source_NAME."""
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
