"""recaption.join: full shards from a captions-only run and the shards it was made from."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Sequence
from functools import partial

from tqdm import tqdm

from recaption.cli.arguments import parse
from recaption.cli.processes import each
from recaption.cli.terminal import is_live
from recaption.errors import TaskError, UserError, bad_value
from recaption.join.shard import Job, Joined, join_shard, whole
from recaption.run import card
from recaption.run.derive import destination, log_published, make_run, parent_record
from recaption.run.folders import inherited_group
from recaption.run.given_up import inherit
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run, derived, open_run
from recaption.run.scan import named, scan
from recaption.run.tasklog import TaskLog
from recaption.shard.located import readable
from recaption.shard.source import spool_file

SHOWN = 10

HELP = """\
usage: python -m recaption.join RUN -o DIR [--spool FOLDER] [--allow-pipe]

Makes full shards from RUN, whose shards have captions only (output.mode=captions), and the shards it
was made from: the same bytes that output.mode=full would have published with these captions. Nothing is
captioned. DIR becomes a run directory of its own, for status, verify, filter and report; RUN is only
read. Each source has to be the one that was captioned; one that is damaged, missing or has changed is
named and gets no shard. The same command again does what is missing, and takes up shards that RUN has
published since.

  -o DIR           the new run directory
  --spool FOLDER   where remote or compressed sources are put, one per process; default: SLURM_TMPDIR
                   or the system's temporary folder
  --inputs PATTERN where the sources are, if they have moved, or if their URLs are signed or they are
                   commands, which is not stored: what data.shards was
  --allow-pipe     run the commands of pipe: sources again

Exit code: 0 if every shard of RUN has its counterpart, 1 if one is missing, 2 for a wrong use.
"""


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    root, given, allow_pipe = _parse(arguments)
    output, spool = given["-o"], given.get("--spool")
    parent, run = open_run(root)
    if run.identity["output.mode"] != "captions":
        reason = "its shards are full already; join is for runs with output.mode=captions"
        raise bad_value("RUN", parent.root, reason)
    sources = readable(run, given.get("--inputs"), allow_pipe=allow_pipe, what="join").shards
    paths = destination(output, parent)
    if spool is not None:
        _try_spool(spool)
    new = make_run(paths, joined(parent, run), inherited_group(parent))
    state, tag = scan(parent, run), uuid.uuid4().hex
    inherit(state, paths, new, tag)
    marked = {name for name in paths.marked() & state.done.keys() if whole(paths, name)}
    todo = [s for s in sources if s.name in state.done and s.name not in marked]
    log, failed = TaskLog(paths.inherited_log(tag)), []
    for result in _each(Job(parent, paths, new, spool, tag), todo):
        if result.error:
            failed.append(result)
            continue
        log_published(log, result.name, result.rows)
    log.close()
    card.complete(paths, new, tag)
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


def _each(job: Job, shards: Sequence[InputShard]) -> Iterator[Joined]:
    """Results in order, with a bar on a terminal."""
    bar = tqdm(total=len(shards), unit="shard", disable=not is_live(sys.stderr), leave=False)
    with bar:
        for result in each(partial(join_shard, job), shards):
            yield result
            bar.update()


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


def _parse(arguments: Sequence[str]) -> tuple[str, dict[str, str], bool]:
    root, given, flags = parse("join", arguments, ["--spool", "--inputs"], ["--allow-pipe"])
    if "-o" not in given:
        raise UserError("-o: needed, a directory for the full shards (see --help)")
    return root, given, "--allow-pipe" in flags
