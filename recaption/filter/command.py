"""recaption.filter: a new run from the samples of another one that fulfill an expression."""

from __future__ import annotations

import time
import uuid
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from recaption.cli.parallel import each
from recaption.cli.progress import with_progress
from recaption.config.check import check_folder
from recaption.filter.names import examples, fulfilling
from recaption.filter.where import Where
from recaption.run import dataset_card
from recaption.run import rows as sidecars
from recaption.run.columns import columns_of
from recaption.run.derive import destination, log_published, make_run, parent_record, take_over
from recaption.run.folders import inherited_group
from recaption.run.given_up import inherit
from recaption.run.paths import RunPaths
from recaption.run.record import Run, derived, open_run
from recaption.run.rows import CAPTIONED, FILTERED, read_rows
from recaption.run.scan import marker, named, scan
from recaption.run.tasklog import TaskLog
from recaption.shard.publishing import Files, Rows, publish_shard
from recaption.shard.rewrite import rewrite_tar
from recaption.shard.settings import settings_of


def filter_run(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    check_folder("-o", options.output)
    parent, run = open_run(options.run)
    where = Where(options.where, examples(columns_of(run)))
    paths = destination(options.output, parent)
    new = make_run(paths, filtered(parent, run, where), inherited_group(parent))
    state, tag = scan(parent, run), uuid.uuid4().hex
    inherit(state, paths, new, tag)
    marked = paths.marked()
    todo = [name for name in state.done if name not in marked]
    changed = [name for name in todo if _loses(parent, run, name, where)]
    take_over(parent, state, paths, new, sorted(set(todo) - set(changed)))
    log = TaskLog(paths.inherited_log(tag))
    job = partial(rewrite_shard, parent, paths, new, where, tag)
    for name, rows in with_progress(each(job, changed), len(changed)):
        log_published(log, name, rows)
    log.close()
    dataset_card.complete(paths, new, tag)
    return _report(paths, new, len(todo), len(changed))


def filtered(parent: RunPaths, run: Run, where: Where) -> Run:
    """The record of the run that an expression makes of another one."""
    covered = {**run.identity, "filter": [*run.identity.get("filter", []), where.text]}
    how = {"command": "filter", "where": where.text}
    return derived(run, covered, parent_record(parent, run, how))


def rewrite_shard(
    parent: RunPaths, paths: RunPaths, new: Run, where: Where, tag: str, name: str
) -> tuple[str, Rows]:
    """Publish one shard without the samples that do not fulfill `where`."""
    settings = settings_of(new)

    def sidecar(path: Path) -> None:
        made = _filtered(parent, new, name, where)
        sidecars.write_rows(path, made, settings.columns)

    def tar(out: BinaryIO, rows: Rows) -> str:
        with parent.tar(name).open("rb") as source:
            return rewrite_tar(out, source, rows, settings)

    def record(rows: Rows, files: Files) -> dict[str, Any]:
        return {
            **marker(parent, name),
            "fingerprint": new.fingerprint,
            "counts": sidecars.count_states(rows),
            **files,
            "filter": new.identity["filter"],
            "finished": time.time(),
        }

    return name, publish_shard(paths, name, tag, sidecar=sidecar, tar=tar, record=record).rows


def _loses(parent: RunPaths, run: Run, name: str, where: Where) -> bool:
    return not all(fulfilling(parent.sidecar(name), columns_of(run), where))


def _filtered(parent: RunPaths, run: Run, name: str, where: Where) -> Rows:
    fulfil = fulfilling(parent.sidecar(name), columns_of(run), where)
    rows = read_rows(parent.sidecar(name))
    captioned = [row for row in rows if row["status"] == CAPTIONED]
    for row, stays in zip(captioned, fulfil, strict=True):
        if not stays:
            row["status"], row["reason"] = FILTERED, f"does not fulfil {where.text}"
    return rows


def _report(paths: RunPaths, run: Run, todo: int, changed: int) -> int:
    state = scan(paths, run)
    print(f"run directory: {paths.root}")
    print(f"{todo - changed} shards linked, {changed} rewritten; samples: {state.counted()}")
    if state.given_up:
        print(named(state.given_up))
    missing = state.unsettled
    if missing:
        print(f"{missing} shards are not published in the parent yet; filter again when they are")
    print(f"next: python -m recaption.verify {paths.root}")
    return 1 if missing else 0
