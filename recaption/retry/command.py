"""recaption.retry: resubmits what a run lacks, or does some samples again in a new run."""

from __future__ import annotations

import uuid
from argparse import Namespace
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from recaption.cli.arguments import split_words
from recaption.cli.tasks import read_submissions
from recaption.config.check import check_folder
from recaption.errors import UserError, bad_choice
from recaption.launch.freeze import refuse_effects, warn_of_effects
from recaption.launch.plan import inputs, select
from recaption.launch.submission import show_plan, submit_missing, waited
from recaption.retry.giving_up import give_up, take_back
from recaption.retry.recompose import Wanted, recompose
from recaption.run.addresses import public
from recaption.run.chat_template import keep_template
from recaption.run.derive import destination, keep_rows, make_run, parent_record, take_over
from recaption.run.given_up import inherit
from recaption.run.identity import differences
from recaption.run.mistaken_tiny import refuse_mistaken
from recaption.run.paths import RunPaths
from recaption.run.record import Run, Submission, derived, open_run
from recaption.run.rows import STATES, read_rows
from recaption.run.scan import RunState, scan
from recaption.shard.input_locations import readable
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
SEVERAL = ("status", "reason", "give_up", "take_back")  # options that may be repeated


def retry(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    _arrange(options)
    paths, run = open_run(options.run)
    if options.give_up:
        return give_up(paths, run, options.give_up)
    if options.take_back:
        return take_back(paths, run, options.take_back)
    refuse_mistaken(paths, run)
    submissions = read_submissions(paths)
    if not submissions:
        raise UserError(f"{paths.root}: nothing was ever submitted here; launch it again")
    # one without slices was refused or withdrawn, and so were its keys
    last = next((s for s in reversed(submissions) if s.slices), submissions[-1])
    wanted = recompose(paths, run, last, options.words, options.config_dir)
    if options.output:
        return _into_new(paths, run, wanted, options, last)
    if wanted.covered != run.identity:
        changed = "; ".join(differences(run.identity, wanted.covered))
        raise UserError(
            f"retry: the run in {paths.root} was made with other values: {changed}. "
            "Leave them, or make another run with launch"
        )
    moved = _find_inputs(run, wanted, last, options)
    selected = _selected(wanted, run, submissions)
    warn_of_effects(wanted.config, wanted.prompts, wanted.keys)
    if wanted.config.dry_run:
        marked = paths.marked()
        missing = [p for p in selected if run.shards[p].name not in marked]
        return show_plan(paths, run, wanted.config, missing).code
    return waited([submit_missing(paths, run, wanted.config, selected, moved=moved)])[0].code


def _find_inputs(run: Run, wanted: Wanted, last: Submission, options: Namespace) -> bool:
    """Set the inputs' places in the configuration; True if they have moved.

    Raises UserError if their place is not known, if an input differs, or if it is a command that may
    not be run.
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
    paths: RunPaths, run: Run, wanted: Wanted, options: Namespace, last: Submission
) -> int:
    """Make the new run and submit its affected shards."""
    check_folder("-o", options.output)
    target = destination(options.output, paths)
    state = scan(paths, run)
    affected = _affected(paths, state, options)
    positions = {shard.name: position for position, shard in enumerate(run.shards)}
    if not affected:
        print(f"nothing to do: no sample of {paths.root} is meant")
        return 0
    how = {"command": "retry", "status": options.status, "reason": options.reason}
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


def _affected(paths: RunPaths, state: RunState, options: Namespace) -> set[str]:
    """Published shards with a sample to be done again, found by their counts or their rows."""
    found = set()
    for name, counts in state.done.items():
        may = [s for s in options.status or STATES if counts.get(s, 1)]
        if may and any(_is_meant(row, options) for row in read_rows(paths.sidecar(name))):
            found.add(name)
    return found


def _is_meant(row: dict[str, Any], options: Namespace) -> bool:
    if options.status and row["status"] not in options.status:
        return False
    reason = row["reason"].lower()
    return not options.reason or any(text.lower() in reason for text in options.reason)


def _arrange(options: Namespace) -> None:
    """Tell RUN and KEY=VALUE words from each other and from values before them; check all.

    The first value behind an option is always its own.
    """
    places, options.words = split_words(options.run, *options.words)
    for name in SEVERAL:
        values, further = [], []
        for first, *others in getattr(options, name):
            behind, words = split_words(*others)
            options.words += words
            further += [value for value in behind if name != "status" or value not in STATES]
            values += [first, *behind]
        if further and not places:
            places = further[-1:]
            values.remove(further[-1])
        setattr(options, name, values)
    if len(places) != 1:
        given = ", ".join(places) or "none"
        raise UserError(f"retry: needs one run directory, given: {given} (see --help)")
    (options.run,) = places
    for status in options.status:
        if status not in STATES:
            raise bad_choice("--status", status, STATES)
    chooses = bool(options.status or options.reason)
    if chooses and not options.output:
        raise UserError("--status and --reason need -o NEW: a run is never modified")
    settles = options.give_up or options.take_back
    if settles and (options.words or chooses or options.output or options.config_dir):
        raise UserError("--give-up and --take-back: take shards alone; retry the rest afterwards")
    if options.give_up and options.take_back:
        raise UserError("--give-up and --take-back: give one or the other")
    if options.output and not chooses:
        raise UserError("-o: needs --status or --reason, which say what to do again")
