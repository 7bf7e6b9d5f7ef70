"""The folder for a repository's Python code: one per task, on its node.

The library's default is in the home folder, where processes on many nodes would write the same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from recaption.engine.base import Spec


@contextmanager
def own_modules(spec: Spec) -> Iterator[dict[str, str]]:
    """Variables for all processes that may load such code; empty if none is trusted."""
    if not spec.config.model.trust_remote_code:
        yield {}
        return
    with TemporaryDirectory(prefix="recaption-modules-", ignore_cleanup_errors=True) as folder:
        yield {"HF_MODULES_CACHE": folder}
