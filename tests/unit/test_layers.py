"""Imports go one way: a room imports those that stand before it, whether at once or when needed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import recaption
from recaption.__main__ import COMMANDS

ROOT = Path(recaption.__file__).parent
# From the ground up; "" is recaption/__init__.py.
ROOMS = [
    *("", "errors", "versions", "config", "run", "cli", "__main__"),
    *("shard", "engine", "model", "prepare", "pipeline", "task", "launch", "tiny"),
]
ABOVE = set(COMMANDS) - set(ROOMS)  # these have no order, and do not import each other
READING = ("filter", "join", "report", "status", "stop", "upload", "verify")
HEAVY = ("launch", "task", "pipeline")
ADAPTER = "recaption.engine.vllm"
RENAMING = {
    "link",
    "symlink",
    "rename",
    "renames",
    "hardlink_to",
    "symlink_to",
    "move",
    "renameat2",
}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


TREES = {_name(path): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def _names(module: str) -> Iterator[str]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in TREES else base


IMPORTED = {module: set(_names(module)) for module in TREES}  # ours and others', at once or later


def _ours(module: str) -> set[str]:
    if module == "recaption":
        return set()  # its one function imports what it needs when it is called
    return {name for name in IMPORTED[module] if name.split(".")[0] == "recaption"} - {module}


def _room(module: str) -> str:
    return [*module.split("."), ""][1]


def _reached(packages: set[str]) -> set[str]:
    """All that these packages import, and what that imports, and so on."""
    reached = {module for module in TREES if _room(module) in packages}
    todo = list(reached)
    while todo:
        found = _ours(todo.pop()) - reached
        reached |= found
        todo += found
    return reached


def test_every_room_has_its_place() -> None:
    assert {_room(module) for module in TREES} == {*ROOMS, *ABOVE}


def test_no_import_climbs() -> None:
    place = {room: number for number, room in enumerate(ROOMS)} | dict.fromkeys(ABOVE, len(ROOMS))
    climbs = [
        f"{module} imports {name}"
        for module in TREES
        for name in sorted(_ours(module))
        if _room(name) != _room(module) and place[_room(name)] >= place[_room(module)]
    ]
    assert climbs == []


@pytest.mark.parametrize("command", READING)
def test_what_reads_runs_needs_neither_the_launcher_nor_tasks(command: str) -> None:
    reached = _reached({command})
    assert {_room(module) for module in reached}.isdisjoint(HEAVY)
    assert not [m for m in reached for name in IMPORTED[m] if name.split(".")[0] == "hydra"]


def test_importing_what_reads_runs_loads_no_launcher() -> None:
    names = [f"recaption.{command}" for command in READING]
    code = f"import json, sys, {', '.join(names)}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert set(names) <= loaded
    assert loaded.isdisjoint({"hydra", "vllm", "torch", *(f"recaption.{r}" for r in HEAVY)})


def test_no_module_needs_itself() -> None:
    for module in TREES:
        todo, reached = list(_ours(module)), set()
        while todo:
            name = todo.pop()
            assert name != module, f"{module} imports what imports it"
            if name not in reached:
                reached.add(name)
                todo += _ours(name)


def test_one_adapter_imports_vllm() -> None:
    """With parts of its own, which other rooms do not know."""
    parts = {m for m in TREES for name in IMPORTED[m] if name.split(".")[0] == "vllm"}
    assert {_room(part) for part in parts} == {"engine"}
    assert ADAPTER in parts
    known = {name for m in TREES if _room(m) != "engine" for name in _ours(m)}
    assert known & parts == {ADAPTER}


def test_one_module_links_and_renames() -> None:
    found = {module for module, tree in TREES.items() if any(map(_renames, ast.walk(tree)))}
    assert found == {"recaption.run.publish"}


def _renames(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value
    replaces = node.func.attr == "replace" and (
        (isinstance(owner, ast.Name) and owner.id == "os")
        or (len(node.args) == 1 and not node.keywords)  # a path's; a text's has two
    )
    return replaces or node.func.attr in RENAMING


def test_every_module_that_the_architecture_names_is_there() -> None:
    page = ROOT.parent / "docs/architecture.md"
    places = [ROOT.parent, ROOT, *(path for path in ROOT.iterdir() if path.is_dir())]
    named = set(re.findall(r"[\w/]+\.py|(?<=`)[\w/]+/(?=`)", page.read_text()))
    assert len(named) > 40
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()
