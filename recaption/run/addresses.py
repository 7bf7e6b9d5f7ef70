"""The inputs' addresses without secrets, as run.json, markers, logs and uploads have them.

The query of a URL may be a signature, and a command may contain anything. So the query is left out
(`https://host/a.tar?`), and a command is replaced by its hash (`pipe:sha256:…`).
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

from recaption.run.output_names import PIPE

HASHED = f"{PIPE}sha256:"
URL = re.compile(
    r"(\b[a-z][a-z0-9+.-]*://)([^\s/@'\"]*@)?([^\s'\"?]*)(\?[^\s'\"]*)?", re.IGNORECASE
)


def public(url: str) -> str:
    """An input's address without its secrets; unchanged if it has none."""
    if url.startswith(PIPE):
        known = url.startswith(HASHED)
        return url if known else HASHED + hashlib.sha256(url.encode()).hexdigest()
    if "://" not in url or url.startswith("file://"):
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    lost = "?" if parts.query or parts.fragment or url.endswith("?") else ""
    return f"{parts.scheme}://{host}{parts.path}{lost}"


def is_incomplete(url: str) -> bool:
    """Whether an address lacks secrets without which its input cannot be read."""
    return url.startswith(HASHED) or ("://" in url and url.endswith("?"))


def is_command(url: str) -> bool:
    return url.startswith(PIPE)


def without_secrets(text: str) -> str:
    """A message with the user names and queries of its URLs left out."""
    return URL.sub(lambda m: f"{m[1]}{m[3]}{'?…' if m[4] else ''}", text)
