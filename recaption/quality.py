"""What is noteworthy about a caption, as flags stored with it."""

from __future__ import annotations

from recaption.engine.base import Caption


def flags(caption: Caption) -> str:
    """Comma-separated flags: `truncated` (stopped by max_tokens), `empty` (no visible character)."""
    found = []
    if caption.finish_reason == "length":
        found.append("truncated")
    if not caption.text.strip():
        found.append("empty")
    return ",".join(found)
