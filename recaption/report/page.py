"""Makes one HTML file, which runs its own script and style and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from typing import Any

POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
    "base-uri 'none'; form-action 'none'"
)


def page(data: dict[str, Any]) -> bytes:
    """The finished page; its script shows `data` as text only, never as HTML."""
    files = resources.files("recaption.report")
    html, style, script = (
        files.joinpath(f"page.{extension}").read_text("utf-8")
        for extension in ("html", "css", "js")
    )
    policy = POLICY.format(style=_hash(style), script=_hash(script))
    parts = {"POLICY": policy, "STYLE": style, "DATA": embedded(data), "SCRIPT": script}
    return re.sub(r"@([A-Z]+)@", lambda mark: parts[mark[1]], html).encode()


def embedded(data: Any) -> str:
    """JSON in a form that is safe inside an HTML script element, whatever texts it has."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
