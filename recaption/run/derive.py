"""Makes a run from another one: hard links to shards that stay, journals for those that change.

The parent is only read. Everything here may be interrupted and done again.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recaption.errors import TaskError, UserError, bad_value
from recaption.run import publish, shared
from recaption.run.columns import Columns, columns_of
from recaption.run.creation import create
from recaption.run.dataset_card import license_of
from recaption.run.journal import Event, Journal
from recaption.run.paths import RunPaths
from recaption.run.record import Run, read_run
from recaption.run.rows import (
    ASKED,
    CAPTIONED,
    FAILED,
    REJECTED,
    count_states,
    frequent_reasons,
    read_rows,
)
from recaption.run.scan import RunState, marker
from recaption.run.tasklog import TaskLog

THREADS = 8  # wait for the file system; more would wait for each other
PART = 64  # markers that a thread writes at a time

Row = dict[str, Any]


def parent_record(paths: RunPaths, run: Run, how: dict[str, Any]) -> dict[str, Any]:
    """The part of a derived run's run.json that describes its parent."""
    about = {"run": str(paths.root), "fingerprint": run.fingerprint, **how}
    return {**about, "license": license_of(paths, run)}


def destination(output: str, parent: RunPaths) -> RunPaths:
    """Where a derived run is made; UserError if that is its parent's place."""
    paths = RunPaths(Path(output).expanduser().absolute())
    if paths.root.resolve() == parent.root.resolve():
        raise bad_value("-o", output, "is the run itself; choose another folder")
    return paths


def make_run(paths: RunPaths, run: Run, group: str | None) -> Run:
    """Create the derived run of a `group`, or take up an interrupted derivation of the same.

    Raises UserError when there is another run.
    """
    if not shared.exists(paths.run_json) and create(paths, run, group):
        return run
    there = read_run(paths)
    if there.fingerprint != run.fingerprint or _origin(there) != _origin(run):
        raise UserError(f"-o {paths.root}: holds another run; choose another folder")
    return there


def _origin(run: Run) -> dict[str, Any]:
    return {key: value for key, value in (run.parent or {}).items() if key != "license"}


def take_over(
    parent: RunPaths, state: RunState, paths: RunPaths, run: Run, names: list[str]
) -> None:
    """Put published shards of the parent into a derived run: hard links, and markers of its own."""
    marked = paths.marked()
    missing = [name for name in names if name not in marked]
    tag = uuid.uuid4().hex
    theirs = read_run(parent).fingerprint
    same = run.fingerprint == theirs
    markers = [RunPaths.marker] if same else []
    for place in (RunPaths.sidecar, RunPaths.tar, *markers):
        publish.share(
            (place(parent, n), place(paths, n), paths.temporary(place(paths, n), tag))
            for n in missing
        )
    if not same:
        _mark(parent, paths, missing, tag, (theirs, run.fingerprint))
    log = TaskLog(paths.inherited_log(tag))
    for name in missing:
        reasons = {"reasons": state.reasons[name]} if name in state.reasons else {}
        again = {"again": state.again[name]} if name in state.again else {}
        log.write("published", shard=name, counts=state.done[name], won=True, **reasons, **again)
    log.close()


def log_published(log: TaskLog, name: str, rows: Sequence[Row]) -> None:
    """What a task says of a shard that it has published, for status and the card."""
    counts, reasons = count_states(rows), frequent_reasons(rows)
    log.write("published", shard=name, counts=counts, won=True, reasons=reasons)


def _mark(
    parent: RunPaths, paths: RunPaths, names: list[str], tag: str, changed: tuple[str, str]
) -> None:
    """Write markers that equal the parent's, except for the fingerprint."""
    theirs, ours = (f'"fingerprint": "{value}"'.encode() for value in changed)

    def mark(part: list[str]) -> None:
        files = []
        for name in part:
            content = shared.content(parent.marker(name))
            if content.count(theirs) != 1:
                raise TaskError(f"{parent.marker(name)}: not a marker of this run; see verify")
            target = paths.marker(name)
            files.append((target, content.replace(theirs, ours), paths.temporary(target, tag)))
        publish.create_all(files)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(mark, [names[i : i + PART] for i in range(0, len(names), PART)]))


def keep_rows(
    parent: RunPaths, paths: RunPaths, run: Run, name: str, keep: Callable[[Row], bool]
) -> int:
    """Journal the parent's results for some samples of a shard; returns how many others there are.

    Only the others are then worked on again.
    """
    if shared.exists(paths.marker(name)):
        return 0
    digest = marker(parent, name)["input"]["digest"]
    columns = columns_of(run)
    attempts: dict[str, list[Event]] = defaultdict(list)
    rows = read_rows(parent.sidecar(name))
    kept = 0
    for row in rows:
        if keep(row):
            kept += 1
            attempts[row["attempt"]].append(event_of(row, columns))
        elif row["status"] in (REJECTED, FAILED):
            asked = {"i": row["index"], "key": row["key"], "status": ASKED}
            attempts[row["attempt"]].append(asked)
    for attempt, events in attempts.items():
        header = {"fingerprint": run.fingerprint, "digest": digest, "attempt": attempt}
        path = paths.journal(name, f"{attempt}.{uuid.uuid4().hex[:12]}")
        journal = Journal(path, header)
        for event in events:
            journal.add(event)
        journal.close()
    return len(rows) - kept


def event_of(row: Row, columns: Columns) -> Event:
    """The final journal event that a row was made from."""
    event: Event = {"i": row["index"], "key": row["key"], "status": row["status"]}
    if row["reason"]:
        event["reason"] = row["reason"]
    answers = columns.answers_in(row)
    if row["status"] == CAPTIONED or any(any(a.values()) for a in answers.values()):
        event["captions"] = answers
    facts = {c.name: row[c.name] for c in columns.facts if row[c.name] not in (None, "")}
    if facts:
        event["facts"] = facts
    if row["strikes"]:
        event["strikes"] = row["strikes"]
    event["tries"] = row["tries"]
    return event
