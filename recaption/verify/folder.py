"""Checks the run directory as a whole: no file is foreign, missing or left over."""

from __future__ import annotations

import json
import time
from pathlib import Path

from recaption.run import shared
from recaption.run.paths import RunPaths, entries, owner_of, stem
from recaption.run.record import Run
from recaption.run.scan import RunState
from recaption.verify.defect import Findings

FRESH_SECONDS = 600.0  # a younger temporary file without a known owner may be in use


def check_folder(paths: RunPaths, run: Run, state: RunState) -> Findings:
    """Look for foreign, missing and left-over files."""
    found = Findings()
    working = _working(state)
    names = {shard.name for shard in run.shards}
    marked = paths.marked()
    for name in state.given_up:
        for path in (paths.tar(name), paths.sidecar(name)):
            if shared.exists(path):
                found.add("shard that was given up", f"{path.name} is there all the same", name)
    _root(paths, found, names, marked, busy=bool(working))
    _markers(paths, found, names, marked)
    _leftovers(paths, found, marked - state.given_up.keys(), working)
    for name in sorted(marked & set(_stems(paths.failures))):
        found.add("leftover failure", f"{paths.failure(name)} is of a published shard", name)
    if names <= marked:
        _sizes(paths, run, state, found)
    elif shared.exists(paths.sizes_json):
        found.add("wrong sizes.json", "it is there although shards are missing")
    return found


def _working(state: RunState) -> set[str]:
    """The attempts that may still be at work."""
    now = time.time()
    return {t.attempt for t in state.tasks if not t.stop and now - t.last_sign < FRESH_SECONDS}


def _root(
    paths: RunPaths, found: Findings, names: set[str], marked: set[str], *, busy: bool
) -> None:
    ours = {paths.meta.name, paths.sizes_json.name, paths.card.name}
    for entry in sorted(entries(paths.root)):
        if entry in names:
            if entry not in marked and not busy:
                found.add("tar without marker", "it was never published as whole", entry)
        elif entry not in ours and not entry.startswith("."):
            found.add("foreign file", f"{entry} is not this run's")
    for folder in sorted(entries(paths.meta)):
        if paths.meta / folder not in [paths.run_json, *paths.folders()]:
            found.add("foreign file", f"{paths.meta.name}/{folder} is not this run's")


def _markers(paths: RunPaths, found: Findings, names: set[str], marked: set[str]) -> None:
    expected = {p.name for name in names for p in (paths.marker(name), paths.sidecar(name))}
    for entry in sorted(set(entries(paths.markers)) - expected):
        found.add("foreign file", f"{paths.markers.name}/{entry} belongs to no shard of this run")
    unfinished = (
        [n for n in names - marked if shared.exists(paths.sidecar(n))] if names - marked else []
    )
    if unfinished:
        found.notes.append(f"{len(unfinished)} shards have a sidecar and no marker yet")


def _leftovers(paths: RunPaths, found: Findings, marked: set[str], working: set[str]) -> None:
    for entry in sorted(entries(paths.journals)):
        shard = f"{owner_of(entry)}.tar"
        if shard in marked and not _in_use(entry, working):
            found.add("leftover journal", f"{paths.journals.name}/{entry}", shard)
    for entry in sorted(entries(paths.temporaries)):
        path = paths.temporaries / entry
        if not _in_use(entry, working) and not _is_fresh(path, entry):
            found.add("stale temporary", f"{paths.temporaries.name}/{entry}")


def _in_use(entry: str, working: set[str]) -> bool:
    owner = entry.rpartition("@")[2].removesuffix(".zst")
    return any(owner == attempt or owner.startswith(f"{attempt}.") for attempt in working)


def _is_fresh(path: Path, entry: str) -> bool:
    """Whether a temporary file of a launcher, which has no log, is so young that it may be in use."""
    if "-" in entry.rpartition("@")[2]:
        return False
    try:
        return time.time() - shared.patiently(path.stat).st_mtime < FRESH_SECONDS
    except FileNotFoundError:
        return True


def _stems(folder: Path) -> list[str]:
    return [f"{stem(n.removesuffix('.json'))}.tar" for n in sorted(entries(folder))]


def _sizes(paths: RunPaths, run: Run, state: RunState, found: Findings) -> None:
    expected = state.sizes(run)
    try:
        sizes = json.loads(shared.content(paths.sizes_json))
    except FileNotFoundError:
        found.add("wrong sizes.json", "it is missing; a launch or retry of the run writes it")
        return
    except ValueError as e:
        found.add("wrong sizes.json", str(e))
        return
    differing = sorted(n for n in {*expected, *sizes} if expected.get(n) != sizes.get(n))
    if differing:
        name = differing[0]
        text = f"{name}: {sizes.get(name)} instead of {expected.get(name)}"
        found.add("wrong sizes.json", f"{text}; {len(differing)} shards differ")
    if not shared.exists(paths.card):
        found.add("missing card", f"{paths.card.name} is missing")
