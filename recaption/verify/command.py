"""The command: checks the folder, every published shard, and the loaders; then says what it found."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from recaption.cli.parallel import each
from recaption.cli.progress import with_progress
from recaption.cli.terminal import Style
from recaption.errors import UserError
from recaption.run.brace_patterns import open_clip_command
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run, open_run
from recaption.run.scan import RunState, scan
from recaption.shard.input_locations import readable
from recaption.verify.defect import Defect, Findings
from recaption.verify.folder import check_folder
from recaption.verify.loaders import FAIL, Loaded, check_loaders
from recaption.verify.shard import check_shard

SHOWN = 20
FEW = 16  # shards up to which no processes are started
SMALL = 4 << 20  # bytes up to which a shard counts as small
RED, GREEN, YELLOW = "31", "32", "33"
COLORS = {"ok": GREEN, "warn": YELLOW, "fail": RED}


def verify(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    if (options.inputs or options.allow_pipe) and not options.input:
        raise UserError("verify: --inputs and --allow-pipe are for --input")
    paths, run = open_run(options.run)
    if options.input:
        run = readable(run, options.inputs, allow_pipe=options.allow_pipe, what="verify --input")
    state = scan(paths, run)
    found = [check_folder(paths, run, state)]
    found += _shards(paths, run, state, against_input=options.input)
    defects = [defect for findings in found for defect in findings.defects]
    notes = [note for findings in found for note in findings.notes]
    notes += [f"given up: {name}: {why}" for name, why in state.given_up.items()]
    if state.unsettled:
        notes.append(f"{state.unsettled} of {state.total} shards are not published yet")
    loaders = check_loaders(paths, run, state, {defect.shard for defect in defects})
    defects += [
        Defect("", "loader", f"{name}: {loaded.text}")
        for name, loaded in loaders.items()
        if loaded.result == FAIL
    ]
    samples = sum(findings.samples for findings in found)
    complete = not state.unsettled
    sound = len(set(state.done) - {defect.shard for defect in defects})
    sizes = {} if run.captions_only else state.sizes(run)
    train = open_clip_command(paths.root, sizes) if any(sizes.values()) else ""
    report = {
        "run": str(paths.root),
        "shards": {
            "total": state.total,
            "published": len(state.done),
            "given_up": len(state.given_up),
        },
        "samples": samples,
        "defects": [asdict(defect) for defect in defects],
        "notes": notes,
        "loaders": {name: asdict(loaded) for name, loaded in loaders.items()},
        "train": train,
        "sound": sound,
        "complete": complete,
        "ok": not defects,
    }
    if options.json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        _show(report, defects, loaders)
    return 1 if defects or (options.complete and not complete) else 0


def _shards(
    paths: RunPaths, run: Run, state: RunState, *, against_input: bool
) -> Iterator[Findings]:
    """Findings of every published shard, in order; says how many have been read."""
    shards = [shard for shard in run.shards if shard.name in state.done]
    check = partial(check_shard, paths, run, against_input=against_input)
    return with_progress(each(check, shards, few=FEW, chunk=_chunk(shards)), len(shards))


def _chunk(shards: list[InputShard]) -> int:
    """How many shards a process reads before it reports: few if they are large."""
    size = sum(shard.size or SMALL for shard in shards) / max(1, len(shards))
    return 8 if size < SMALL else 1


def _show(report: dict[str, Any], defects: list[Defect], loaders: dict[str, Loaded]) -> None:
    style = Style(sys.stdout)
    shards = report["shards"]
    print(f"{report['run']}: {shards['published']} shards, {report['samples']} samples read")
    for note in report["notes"]:
        print(f"  {note}")
    for name, loaded in loaders.items():
        print(f"  {name:10} {style(loaded.result, COLORS.get(loaded.result, '0'))}: {loaded.text}")
    for defect in defects[:SHOWN]:
        where = f"{defect.shard}: " if defect.shard else ""
        print(f"  {style(defect.kind, RED)}: {where}{defect.text}")
    if len(defects) > SHOWN:
        print(f"  … and {len(defects) - SHOWN} more (--json has all)")
    if report["train"]:
        print(f"train on it: {report['train']}")
    print(_last_line(report, loaders, style))


def _last_line(report: dict[str, Any], loaders: dict[str, Loaded], style: Style) -> str:
    found = len(report["defects"])
    verdict = style("no defect", GREEN)
    if found:
        verdict = style(f"{found} defect{'s' * (found > 1)}", RED) + ", none"
    wanted = report["shards"]["total"] - report["shards"]["given_up"]
    text = f"{verdict} in {report['sound']} of {wanted} shards"
    if not report["complete"]:
        text += f": {style('run unfinished', YELLOW)}"
    read = [f"{name} {loaded.samples}" for name, loaded in loaders.items() if loaded.samples]
    return text + (f"; samples read by {', '.join(read)}" if read else "")
