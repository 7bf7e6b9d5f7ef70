"""recaption.join: full shards from a captions-only run and the shards it was made from."""

from __future__ import annotations

import sys
import uuid
from argparse import Namespace
from functools import partial

from recaption.cli.parallel import each
from recaption.cli.progress import with_progress
from recaption.config.check import check_folder
from recaption.errors import TaskError, UserError, bad_value
from recaption.join.shard import Job, Joined, join_shard, whole
from recaption.run import dataset_card
from recaption.run.derive import destination, log_published, make_run, parent_record
from recaption.run.folders import inherited_group
from recaption.run.given_up import inherit
from recaption.run.paths import RunPaths
from recaption.run.record import Run, derived, open_run
from recaption.run.scan import named, scan
from recaption.run.tasklog import TaskLog
from recaption.shard.input_locations import readable
from recaption.shard.source import spool_file

SHOWN = 10


def join(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    check_folder("-o", options.output)
    spool = options.spool
    parent, run = open_run(options.run)
    if not run.captions_only:
        reason = "its shards are full already; join is for runs with output.mode=captions"
        raise bad_value("RUN", parent.root, reason)
    sources = readable(run, options.inputs, allow_pipe=options.allow_pipe, what="join").shards
    paths = destination(options.output, parent)
    if spool is not None:
        _try_spool(spool)
    new = make_run(paths, joined(parent, run), inherited_group(parent))
    state, tag = scan(parent, run), uuid.uuid4().hex
    inherit(state, paths, new, tag)
    marked = {name for name in paths.marked() & state.done.keys() if whole(paths, name)}
    todo = [s for s in sources if s.name in state.done and s.name not in marked]
    log, failed = TaskLog(paths.inherited_log(tag)), []
    job = partial(join_shard, Job(parent, paths, new, spool, tag))
    for result in with_progress(each(job, todo), len(todo)):
        if result.error:
            failed.append(result)
            continue
        log_published(log, result.name, result.rows)
    log.close()
    dataset_card.complete(paths, new, tag)
    return _report(paths, new, len(todo), failed)


def _try_spool(folder: str) -> None:
    try:
        spool_file(folder, "--spool").close()
    except TaskError as e:
        raise UserError(str(e)) from None


def joined(parent: RunPaths, run: Run) -> Run:
    """The record of the run that output.mode=full would have made, with this parent."""
    covered = {**run.identity, "output.mode": "full"}
    return derived(run, covered, parent_record(parent, run, {"command": "join"}))


def _report(paths: RunPaths, run: Run, todo: int, failed: list[Joined]) -> int:
    for result in failed[:SHOWN]:
        print(f"recaption: {result.name}: {result.error}", file=sys.stderr)
    if len(failed) > SHOWN:
        print(f"recaption: … and {len(failed) - SHOWN} more", file=sys.stderr)
    state = scan(paths, run)
    print(f"run directory: {paths.root}")
    print(f"{todo - len(failed)} shards joined; samples: {state.counted()}")
    if state.given_up:
        print(named(state.given_up))
    missing = state.unsettled - len(failed)
    if missing > 0:
        print(f"{missing} shards are not published in {root_of(run)} yet; join again when they are")
    print(f"next: python -m recaption.verify {paths.root} --input")
    return 1 if failed or missing > 0 else 0


def root_of(run: Run) -> str:
    """The parent's directory."""
    return str((run.parent or {})["run"])
