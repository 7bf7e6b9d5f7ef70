"""Gives up shards that cannot be made, and undoes that."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Sequence

from recaption.errors import UserError
from recaption.run import dataset_card, shared
from recaption.run.given_up import mark, unmark
from recaption.run.paths import RunPaths, stem
from recaption.run.record import Run
from recaption.run.scan import RunState, scan

UNKNOWN = "no failure is on record"


def give_up(paths: RunPaths, run: Run, wanted: Sequence[str]) -> int:
    """Mark shards as given up, with the reason of their failure; UserError if one is published."""
    names = _named("--give-up", run, wanted)
    state, tag = scan(paths, run), uuid.uuid4().hex
    for name in names:
        if name in state.done:
            raise UserError(f"--give-up {name}: is published in {paths.root}")
        if shared.exists(paths.tar(name)):
            raise UserError(f"--give-up {name}: {paths.tar(name)} is there; move it away")
    for name in names:
        reason = state.given_up.get(name) or state.failed.get(name, {}).get("reason", UNKNOWN)
        mark(paths, run, name, reason, tag)
        print(f"given up: {name}: {reason}")
    dataset_card.complete(paths, run, tag)
    _next(paths, scan(paths, run))
    return 0


def take_back(paths: RunPaths, run: Run, wanted: Sequence[str]) -> int:
    """Undo give_up: the shards are missing again; UserError for one that was not given up."""
    names = _named("--take-back", run, wanted)
    state = scan(paths, run)
    for name in names:
        if name not in state.given_up:
            raise UserError(f"--take-back {name}: was not given up in {paths.root}")
    unmark(paths, run, names)
    for name in names:
        print(f"taken back: {name}")
    _next(paths, scan(paths, run))
    return 0


def _named(option: str, run: Run, wanted: Sequence[str]) -> list[str]:
    """The output names of shards that are named by output name, with or without `.tar`, or input."""
    known = {word: s.name for s in run.shards for word in (stem(s.name), s.url)}
    known |= {s.name: s.name for s in run.shards}
    for word in wanted:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"{option} {word}: the run has no such shard{hint}")
    return list(dict.fromkeys(known[word] for word in wanted))


def _next(paths: RunPaths, state: RunState) -> None:
    left = f"{state.unsettled} of {state.total} shards are left; "
    command = "retry" if state.unsettled else "verify"
    print(f"{left if state.unsettled else ''}next: python -m recaption.{command} {paths.root}")
