"""Opens and finishes shards, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

from recaption.engine.parent_death import die_with_task
from recaption.errors import DiskFull, InputChanged, ShardError
from recaption.prepare.worker import READY
from recaption.run import journal, rows, shared
from recaption.run.addresses import public
from recaption.run.columns import Columns
from recaption.run.crash_points import crash_point
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard
from recaption.shard import source
from recaption.shard.index import Index, index_shard
from recaption.shard.publishing import Files, Rows, publish_shard, whole_sidecar
from recaption.shard.text import clean
from recaption.shard.write import Reader, Settings, source_text, write_tar

GIB = 1 << 30
SALVAGED = "a retry with data.damaged=salvage takes what is intact"
LEFT_OUT = "one with --give-up leaves the shard out"


@dataclass(frozen=True)
class Context:
    """Settings that all shards of a task share."""

    paths: RunPaths
    fingerprint: str
    attempt: str
    settings: Settings
    max_samples: int | None
    outage_seconds: float | None = None
    damaged: str = "fail"  # data.damaged, for shards without a published sidecar
    damaged_then: str = "fail"  # the value for sidecars that do not record it


@dataclass(frozen=True)
class Open:
    """A job: index a shard and read the journals of earlier attempts."""

    shard: InputShard
    path: str  # where to read it
    room: int | None  # bytes that the spool file at `path` may have; None: no spool file


@dataclass(frozen=True)
class Opened:
    index: Index
    done: dict[int, str]  # sample index → its state
    strikes: dict[int, int]
    asked: set[int]


@dataclass(frozen=True)
class Finish:
    """A job: publish a shard, all of whose samples have their final state in the journals."""

    shard: InputShard
    path: str
    digest: str
    facts: dict[str, Any]  # recorded in the marker: versions, GPU, host, task


@dataclass(frozen=True)
class Finished:
    counts: dict[str, int]
    won: bool  # this attempt made the marker
    reasons: dict[str, list[Any]] = field(default_factory=dict)  # see rows.frequent_reasons
    again: dict[str, int] = field(default_factory=dict)  # see rows.no_better


def main(connection: Connection, context: Context) -> None:
    """Entry point of the child process: Open or Finish in, their result or an error out."""
    die_with_task()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection.send(READY)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            os._exit(0)
        connection.send(answer(context, job))


def answer(context: Context, job: Open | Finish) -> Opened | Finished | ShardError | DiskFull:
    """The result of a job; a failure does not count if another attempt was faster."""
    try:
        return open_shard(context, job) if isinstance(job, Open) else finish(context, job)
    except DiskFull as e:
        return e
    except (ShardError, OSError) as e:
        if shared.exists(context.paths.marker(job.shard.name)):
            return Finished({}, won=False)
        return e if isinstance(e, ShardError) else ShardError(f"{type(e).__name__}: {e}")


def open_shard(context: Context, job: Open) -> Opened:
    """Index a shard strictly; raises ShardError or InputChanged."""
    local = source.local_path(job.shard.source)
    size = local.stat().st_size if local else None
    if None not in (size, job.shard.size) and size != job.shard.size:
        raise InputChanged(f"input changed: {size} bytes, frozen with {job.shard.size}")
    if job.room is not None:
        size = job.shard.size
        source.fetch(job.shard.source, job.path, job.room, size, context.outage_seconds)
    with open(job.path, "rb") as file:
        index = _index(context, file, _damaged(context, job.shard.name))
    history = _history(context, job.shard.name, index)
    for damage in history.damaged:
        print(f"recaption: damaged journal, read up to its damage: {damage}", file=sys.stderr)
    states = {i: event["status"] for i, event in history.final.items()}
    return Opened(index, states, history.strikes, history.asked)


def _history(context: Context, name: str, index: Index) -> journal.History:
    journals = context.paths.journals_of(name)
    return journal.read_history(journals, context.fingerprint, index.digest)


def _damaged(context: Context, name: str) -> str:
    """data.damaged for a shard: the published sidecar's value, else this task's."""
    sidecar = context.paths.sidecar(name)
    if not shared.exists(sidecar):
        return context.damaged
    with whole_sidecar(sidecar):
        return rows.read_note(sidecar, rows.DAMAGED) or context.damaged_then


def _index(context: Context, file: BinaryIO, damaged: str) -> Index:
    salvage = damaged == "salvage"
    try:
        return limited(index_shard(file, context.settings.layout, salvage=salvage), context)
    except ShardError as e:
        raise ShardError(f"{e} ({LEFT_OUT if salvage else f'{SALVAGED}, {LEFT_OUT}'})") from None


def limited(index: Index, context: Context) -> Index:
    """The first data.max_samples samples."""
    return replace(index, samples=index.samples[: context.max_samples])


def finish(context: Context, job: Finish) -> Finished:
    """Publish a shard; whoever was first with its sidecar, tar and marker has decided each."""
    paths, name = context.paths, job.shard.name
    if shared.exists(paths.marker(name)):
        _leave(context, name)
        return Finished({}, won=False)
    with open(job.path, "rb") as file:
        made = _Finishing(context, job, file)
        published = publish_shard(
            paths, name, context.attempt, sidecar=made.sidecar, tar=made.tar, record=made.record
        )
    _leave(context, name)
    crash_point("left")
    record, reasons = published.record, rows.frequent_reasons(published.rows)
    return Finished(record["counts"], published.won, reasons, record.get("again", {}))


class _Finishing:
    """What a shard is made of: its source, and what the journals say of its samples."""

    def __init__(self, context: Context, job: Finish, file: BinaryIO) -> None:
        self.context, self.job, self.file = context, job, file
        self.damaged = _damaged(context, job.shard.name)
        self.index = _index(context, file, self.damaged)
        if self.index.digest != job.digest and self.damaged == context.damaged:
            raise InputChanged("input changed while its captions were made")
        self.history = _history(context, job.shard.name, self.index)

    def sidecar(self, path: Path) -> None:
        """Write the rows that the journals make."""
        settings, notes = self.context.settings, {rows.DAMAGED: self.context.damaged}
        made = _rows(self.context, self.index, self.history, self.file)
        rows.write_rows(path, made, settings.columns, notes)

    def tar(self, out: BinaryIO, decided: Rows) -> str:
        """Write the shard of the published rows."""
        decisive = _damaged(self.context, self.job.shard.name)
        if decisive != self.damaged:  # another task was first
            self.damaged, self.index = decisive, _index(self.context, self.file, decisive)
        return write_tar(out, self.file, self.index, decided, self.context.settings)

    def record(self, decided: Rows, files: Files) -> dict[str, Any]:
        """The marker."""
        shard, index = self.job.shard, self.index
        again = rows.no_better([row for row in decided if row["index"] in self.history.asked])
        return {
            "shard": shard.name,
            "fingerprint": self.context.fingerprint,
            "input": {"url": public(shard.url), "size": index.size, "digest": index.digest},
            "samples": len(decided),
            "counts": rows.count_states(decided),
            **({"again": again} if again else {}),
            "skipped_members": index.skipped,
            rows.DAMAGED: self.damaged,
            **({"damaged": index.damaged} if index.damaged else {}),
            **files,
            "attempt": self.context.attempt,
            "finished": time.time(),
            **self.job.facts,
        }


def _rows(context: Context, index: Index, history: journal.History, file: BinaryIO) -> Rows:
    reader = Reader(file)
    made = []
    for i, sample in enumerate(index.samples):
        event = history.final.get(i)
        if event is None:
            why = history.unread.get(i, "it has no state in the journals")
            raise ShardError(f"sample {sample.key}: {why}")
        original = source_text(reader, sample, context.settings.texts)
        made.append(_row(event, original.text, context.settings.columns))
    return made


def _row(event: journal.Event, original: str, columns: Columns) -> dict[str, Any]:
    facts = event.get("facts", {})
    return {
        "key": event["key"],
        "index": event["i"],
        "status": event["status"],
        "reason": clean(event.get("reason", "")),
        "caption_original": original,
        "tries": event.get("tries", 1),
        "strikes": event.get("strikes", 0),
        "attempt": event["attempt"],
        **{c.name: facts.get(c.name, c.nothing) for c in columns.facts},
        **columns.answered(event.get("captions", {})),
    }


def _leave(context: Context, name: str) -> None:
    """Remove all attempts' journals and temporary files of a shard that has its marker."""
    for path in [
        *context.paths.journals_of(name),
        *context.paths.temporaries_of(name),
        context.paths.failure(name),
    ]:
        shared.remove(path)
