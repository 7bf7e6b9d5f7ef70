"""Where a repository's own Python code is unpacked: a place of each task's own, on its node.

The library's usual place is in the home folder, where processes of many nodes would write one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from recaption.engine.base import Spec


@contextmanager
def own_modules(spec: Spec) -> Iterator[dict[str, str]]:
    """Variables for all processes that may load such code; empty where none is trusted."""
    if not spec.config.model.trust_remote_code:
        yield {}
        return
    with TemporaryDirectory(prefix="recaption-modules-", ignore_cleanup_errors=True) as folder:
        yield {"HF_MODULES_CACHE": folder}
