"""A new run from the shards of another one: hard links to what stays, journals for what changes.

The parent is only read. Everything here may be interrupted and done again.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from recaption import publish
from recaption.errors import UserError
from recaption.journal import Event, Journal
from recaption.launch.freeze import create
from recaption.run.paths import RunPaths
from recaption.run.record import Run, read_run
from recaption.run.rows import CAPTIONED, read_rows
from recaption.run.scan import RunState, marker
from recaption.run.tasklog import TaskLog

ANSWER = ("caption", "finish_reason", "tokens", "flags")  # columns of one prompt
OTHER = {"key", "index", "status", "reason", "caption_original", "tries", "strikes", "attempt"}
THREADS = 16  # that wait for the file system

Row = dict[str, Any]


def parent_record(paths: RunPaths, run: Run, how: dict[str, Any]) -> dict[str, Any]:
    """What run.json of a derived run says about where it comes from."""
    return {"run": str(paths.root), "fingerprint": run.fingerprint, **how}


def make_run(paths: RunPaths, run: Run) -> Run:
    """Create the derived run, or take up an interrupted derivation of the same.

    Raises UserError when there is another run.
    """
    if not paths.run_json.exists() and create(paths, run):
        return run
    there = read_run(paths)
    if there.fingerprint != run.fingerprint or there.parent != run.parent:
        raise UserError(f"-o {paths.root}: holds another run; choose another folder")
    return there


def take_over(
    parent: RunPaths, state: RunState, paths: RunPaths, run: Run, names: list[str]
) -> None:
    """Give published shards of the parent a place in a derived run: links, and a marker of its own."""
    marked = paths.marked()
    missing = [name for name in names if name not in marked]
    tag = uuid.uuid4().hex
    for place in (RunPaths.sidecar, RunPaths.tar):
        publish.share(
            (place(parent, n), place(paths, n), paths.temporary(place(paths, n), tag))
            for n in missing
        )

    def mark(name: str) -> None:
        record = {**marker(parent, name), "fingerprint": run.fingerprint}
        target = paths.marker(name)
        publish.create(target, publish.to_json(record), paths.temporary(target, tag))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(mark, missing))
    log = TaskLog(paths.inherited_log(tag))
    for name in missing:
        reasons = {"reasons": state.reasons[name]} if name in state.reasons else {}
        log.write("published", shard=name, counts=state.done[name], won=True, **reasons)
    log.close()


def keep_rows(
    parent: RunPaths, paths: RunPaths, run: Run, name: str, keep: Callable[[Row], bool]
) -> int:
    """Journal what the parent found out about some samples of a shard; returns how many others.

    Only the others are then worked on again.
    """
    if paths.marker(name).exists():
        return 0
    digest = marker(parent, name)["input"]["digest"]
    prompts = [p.name for p in run.prompts]
    attempts: dict[str, list[Event]] = defaultdict(list)
    rows = read_rows(parent.sidecar(name))
    for row in rows:
        if keep(row):
            attempts[row["attempt"]].append(event_of(row, prompts))
    for attempt, events in attempts.items():
        header = {"fingerprint": run.fingerprint, "digest": digest, "attempt": attempt}
        path = paths.journal(name, f"{attempt}.{uuid.uuid4().hex[:12]}")
        journal = Journal(path, header)
        for event in events:
            journal.add(event)
        journal.close()
    return len(rows) - sum(map(len, attempts.values()))


def event_of(row: Row, prompts: Sequence[str]) -> Event:
    """The final journal event that a row was made from."""
    event: Event = {"i": row["index"], "key": row["key"], "status": row["status"]}
    if row["reason"]:
        event["reason"] = row["reason"]
    names = {name: f"_{name}" for name in prompts} if len(prompts) > 1 else {prompts[0]: ""}
    answers = {
        name: {column: row[f"{column}{suffix}"] for column in ANSWER}
        for name, suffix in names.items()
    }
    if row["status"] == CAPTIONED or any(any(a.values()) for a in answers.values()):
        event["captions"] = answers
    known = OTHER | set(ANSWER) | {f"{c}{suffix}" for c in ANSWER for suffix in names.values()}
    facts = {k: v for k, v in row.items() if k not in known and v not in (None, "")}
    if facts:
        event["facts"] = facts
    if row["strikes"]:
        event["strikes"] = row["strikes"]
    event["tries"] = row["tries"]
    return event
