"""Shards that are given up: settled without being published, since they cannot be made."""

from __future__ import annotations

import time
from collections.abc import Collection

from recaption.run import dataset_card, publish, shared
from recaption.run.paths import RunPaths
from recaption.run.record import Run
from recaption.run.scan import GIVEN_UP, RunState, scan
from recaption.run.tasklog import TaskLog


def mark(paths: RunPaths, run: Run, name: str, reason: str, tag: str) -> None:
    """Give a shard a marker that says why it was given up; remove its rows, if there are any."""
    record = {
        "shard": name,
        "fingerprint": run.fingerprint,
        GIVEN_UP: reason,
        "finished": time.time(),
    }
    log = TaskLog(paths.inherited_log(tag))
    log.write("given_up", shard=name)
    log.close()
    marker = paths.marker(name)
    if publish.create(marker, publish.to_json(record), paths.temporary(marker, tag)):
        for path in (paths.sidecar(name), paths.failure(name)):
            shared.remove(path)


def unmark(paths: RunPaths, run: Run, names: Collection[str]) -> None:
    """Make shards that were given up missing again."""
    if names and len(paths.marked()) == len(run.shards):
        dataset_card.withdraw(paths, run)
    for name in names:
        shared.remove(paths.marker(name))


def inherit(parent: RunState, paths: RunPaths, run: Run, tag: str) -> None:
    """Give up in a derived run what its parent has given up, and nothing else."""
    before = scan(paths, run).given_up
    unmark(paths, run, before.keys() - parent.given_up.keys())
    for name in parent.given_up.keys() - before.keys():
        mark(paths, run, name, parent.given_up[name], tag)
