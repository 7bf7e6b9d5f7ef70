"""recaption.retry: does again what a run lacks, in place, or into a new run beside it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from recaption.cli.tasks import read_submissions
from recaption.config.check import check_folder
from recaption.errors import UserError, bad_choice
from recaption.launch.freeze import refuse_effects, warn_of_effects
from recaption.launch.plan import inputs, select
from recaption.launch.submission import show_plan, submit_missing, waited
from recaption.retry.recompose import Wanted, recompose
from recaption.retry.settle import give_up, take_back
from recaption.run.addresses import public
from recaption.run.derive import destination, keep_rows, make_run, parent_record, take_over
from recaption.run.given_up import inherit
from recaption.run.identity import differences
from recaption.run.kept import keep_template
from recaption.run.mistaken import refuse_mistaken
from recaption.run.paths import RunPaths
from recaption.run.record import Run, Submission, derived, open_run
from recaption.run.rows import STATES, read_rows
from recaption.run.scan import RunState, scan
from recaption.shard.located import readable
from recaption.shard.patterns import patterns_of
from recaption.shard.settings import settings_of

SHAPE = {  # properties that shape a shard → the keys that set them
    "model": "model.name",
    "columns.prompts": "prompt.name",
    "image_keys": "data.image_keys",
    "text_key": "data.text_key",
    "caption_key": "data.caption_key",
    "scattered": "data.order",
    "keep_text": "output.text",
    "captions_only": "output.mode",
    "columns.scores": "scorers",
}
KEPT = ("prompt.name",)  # a retry's captions share columns with the run's
INPUTS = ("data.shards", "data.max_samples")

HELP = """\
usage: python -m recaption.retry RUN [KEY=VALUE …] [--config-dir DIR]
       python -m recaption.retry RUN --status STATE … --reason TEXT … -o NEW [KEY=VALUE …]
       python -m recaption.retry RUN --give-up SHARD … | --take-back SHARD …

Submits a run's missing shards again, with the configuration of its last submission. Keys outside the
fingerprint may change (slurm.*, task.*, engine batch sizes, data.range, wait, …); a group such as
slurm=mysite replaces its whole section, and that of task.*. Without data.range, every shard that was ever
selected and has no marker is submitted. slurm.setup and slurm.additional are never stored, since they may
hold secrets: where they were used, name their preset again, or give them as slurm.setup=[…].

With --status or --reason, a new run NEW is made: published shards of RUN that hold no such sample are
hard-linked; in the others such samples are done again, with KEY=VALUE, and all others keep their
rows. Shards that RUN has not published are left for a later retry of NEW. RUN itself is only read.

A shard that cannot be made keeps a run unfinished. data.damaged=salvage takes what is intact of a damaged
one; --give-up settles the run without the shard, and nothing is submitted.

  --give-up SHARD    mark a shard, by its name or input, as given up: it has no tar, and every command
                     passes over it by name; may be repeated, or take several
  --take-back SHARD  undo that: the shard is missing again
  --status STATE     captioned, filtered, rejected or failed; may be repeated, or take several
  --reason TEXT      samples whose reason contains TEXT (any case); may be repeated, or take several
  -o NEW             the new run's directory
  --config-dir DIR   a folder with presets of your own
  --inputs PATTERN   where the inputs are, if they have moved (equal names and sizes), or if their URLs are
                     signed or they are commands, which is not stored: what data.shards was
  --allow-pipe       run the commands of pipe: inputs again

Exit code as launch: 0 submitted, or settled, or everything published where it waits; 1 something is
missing; 2 for a wrong use, such as a key inside the fingerprint.
"""


@dataclass
class _Options:
    words: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    output: str | None = None
    config_dir: str | None = None
    inputs: str | None = None
    allow_pipe: bool = False


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    options = _parse(arguments)
    paths, run = open_run(options.runs[0])
    if options.given_up:
        return give_up(paths, run, options.given_up)
    if options.taken_back:
        return take_back(paths, run, options.taken_back)
    refuse_mistaken(paths, run)
    submissions = read_submissions(paths)
    if not submissions:
        raise UserError(f"{paths.root}: nothing was ever submitted here; launch it again")
    wanted = recompose(paths, run, submissions[-1], options.words, options.config_dir)
    if options.output:
        return _into_new(paths, run, wanted, options, submissions[-1])
    if wanted.covered != run.identity:
        changed = "; ".join(differences(run.identity, wanted.covered))
        raise UserError(
            f"retry: the run in {paths.root} was made with other values: {changed}. "
            "Leave them, or make another run with launch"
        )
    moved = _find_inputs(run, wanted, submissions[-1], options)
    selected = _selected(wanted, run, submissions)
    warn_of_effects(wanted.config, wanted.prompts, wanted.keys)
    if wanted.config.dry_run:
        marked = paths.marked()
        missing = [p for p in selected if run.shards[p].name not in marked]
        return show_plan(paths, run, wanted.config, missing).code
    return waited([submit_missing(paths, run, wanted.config, selected, moved=moved)])[0].code


def _find_inputs(run: Run, wanted: Wanted, last: Submission, options: _Options) -> bool:
    """Set the inputs' places in the configuration; True if they have moved.

    Raises UserError where it is not known, where one is another, and for commands that may not run.
    """
    config = wanted.config
    named = config.data.shards if "data.shards" in wanted.keys else None
    pattern = options.inputs or named or last.inputs
    key = "--inputs" if options.inputs else "data.shards"
    allowed = options.allow_pipe or (config.data.allow_pipe and "data.allow_pipe" in wanted.keys)
    there = readable(run, pattern, allow_pipe=allowed, what="retry", key=key)
    if pattern is None:
        return False
    config.data.shards, config.data.allow_pipe = pattern, allowed
    sizes = {shard.name: shard.size for shard in inputs(config, patterns_of(run))}
    for shard in there.shards:
        if None not in (shard.size, sizes[shard.name]) and shard.size != sizes[shard.name]:
            raise UserError(
                f"{key}: {shard.name}: the run was made from {shard.size} bytes, and there are "
                f"{sizes[shard.name]}"
            )
    return any(public(shard.source) != public(shard.url) for shard in there.shards)


def _selected(wanted: Wanted, run: Run, submissions: Sequence[Submission]) -> list[int]:
    if "data.range" in wanted.keys:
        return select(wanted.config.data.range, len(run.shards))
    return sorted({position for s in submissions for position in s.selected})


def _into_new(
    paths: RunPaths, run: Run, wanted: Wanted, options: _Options, last: Submission
) -> int:
    """Make the new run and submit its affected shards."""
    assert options.output is not None
    check_folder("-o", options.output)
    target = destination(options.output, paths)
    state = scan(paths, run)
    affected = _affected(paths, state, options)
    positions = {shard.name: position for position, shard in enumerate(run.shards)}
    if not affected:
        print(f"nothing to do: no sample of {paths.root} is meant")
        return 0
    how = {"command": "retry", "status": options.statuses, "reason": options.reasons}
    new = derived(
        run,
        wanted.covered,
        parent_record(paths, run, how),
        prompts=wanted.prompts,
        model=wanted.model,
    )
    _check_shape(run, new)
    wanted.config.output.dir = str(target.root)
    moved = _find_inputs(new, wanted, last, options)
    refuse_effects(wanted.config, wanted.prompts, {*wanted.keys, *KEPT})
    selected = sorted(positions[name] for name in affected)
    if wanted.config.dry_run:
        return show_plan(target, new, wanted.config, selected).code
    new = make_run(target, new, wanted.config.output.group)
    keep_template(target, new.identity, wanted.config.model.chat_template)
    untouched = [name for name in state.done if name not in affected]
    take_over(paths, state, target, new, untouched)
    again = sum(
        keep_rows(paths, target, new, name, lambda row: not _is_meant(row, options))
        for name in affected
    )
    print(f"{len(untouched)} shards linked; {again} samples of {len(affected)} shards to do again")
    inherit(state, target, new, uuid.uuid4().hex)
    if state.unsettled:
        lacks = f"{state.unsettled} shards that {paths.root} lacks"
        print(f"{lacks} are left for a retry of {target.root}")
    return waited([submit_missing(target, new, wanted.config, selected, moved=moved)])[0].code


def _check_shape(run: Run, new: Run) -> None:
    """Raise UserError if a key that shapes shards changes: kept and new samples share shards."""
    before, after = settings_of(run), settings_of(new)
    parts = {key: attrgetter(name) for name, key in SHAPE.items()}
    changed = [key for key, part in parts.items() if part(before) != part(after)]
    changed += [k for k in INPUTS if run.identity[k] != new.identity[k]]
    if changed:
        raise UserError(
            f"{changed[0]}: cannot change for some samples of a run; "
            "launch a run of its own with another output.dir"
        )


def _affected(paths: RunPaths, state: RunState, options: _Options) -> set[str]:
    """Published shards with a sample to be done again, found by their counts or their rows."""
    found = set()
    for name, counts in state.done.items():
        may = [s for s in options.statuses or STATES if counts.get(s, 1)]
        if may and any(_is_meant(row, options) for row in read_rows(paths.sidecar(name))):
            found.add(name)
    return found


def _is_meant(row: dict[str, Any], options: _Options) -> bool:
    if options.statuses and row["status"] not in options.statuses:
        return False
    reason = row["reason"].lower()
    return not options.reasons or any(text.lower() in reason for text in options.reasons)


def _parse(arguments: list[str]) -> _Options:
    options = _Options()
    lists = {
        "--status": options.statuses,
        "--reason": options.reasons,
        "--give-up": options.given_up,
        "--take-back": options.taken_back,
    }
    single = {"-o": "output", "--output": "output", "--config-dir": "config_dir"}
    single["--inputs"] = "inputs"
    taker: list[str] | None = None
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in lists:
            taker = lists[name]
            given = value if equals else next(rest, None)
            if given is None:
                raise UserError(f"{name}: needs a value")
            taker.append(given)
        elif name in single:
            given = value if equals else next(rest, None)
            if given is None:
                raise UserError(f"{name}: needs a value")
            setattr(options, single[name], given)
            taker = None
        elif argument == "--allow-pipe":
            options.allow_pipe, taker = True, None
        elif argument.startswith("-"):
            known = ["--help", *lists, *single, "--allow-pipe"]
            raise bad_choice("option", argument, known)
        elif _is_word(argument):
            options.words.append(argument)
            taker = None
        elif taker is not None and options.runs:
            taker.append(argument)
        else:
            options.runs.append(argument)
    _check_options(options)
    return options


def _is_word(argument: str) -> bool:
    key, equals, _ = argument.partition("=")
    return argument.startswith("~") or bool(equals and "/" not in key)


def _check_options(options: _Options) -> None:
    if len(options.runs) != 1:
        given = ", ".join(options.runs) or "none"
        raise UserError(f"retry: needs one run directory, given: {given} (see --help)")
    for status in options.statuses:
        if status not in STATES:
            raise bad_choice("--status", status, STATES)
    chooses = bool(options.statuses or options.reasons)
    if chooses and not options.output:
        raise UserError("--status and --reason need -o NEW: a run is never modified")
    settles = options.given_up or options.taken_back
    if settles and (options.words or chooses or options.output or options.config_dir):
        raise UserError("--give-up and --take-back: take shards alone; retry the rest afterwards")
    if options.given_up and options.taken_back:
        raise UserError("--give-up and --take-back: give one or the other")
    if options.output and not chooses:
        raise UserError("-o: needs --status or --reason, which say what to do again")
