"""recaption.retry: does again what a run lacks, in place, or into a new run beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from recaption.config import overrides
from recaption.config.check import check
from recaption.config.compose import compose_config, named_prompts
from recaption.config.schema import Config, Prompt
from recaption.derive import keep_rows, make_run, parent_record, take_over
from recaption.errors import UserError, bad_choice, bad_value
from recaption.model_files import resolve
from recaption.plan import expand, select
from recaption.prompt import check_prompts
from recaption.run.identity import differences, fingerprint, identity
from recaption.run.paths import RunPaths
from recaption.run.record import Run, Submission, open_run, typed_config
from recaption.run.rows import STATES, read_rows
from recaption.run.scan import RunState, scan
from recaption.submission import show_plan, submit_missing
from recaption.tasks import read_submissions
from recaption.versions import versions

FREE = ("slurm", "wait", "dry_run")  # sections that the fingerprint knows nothing of
SHAPING = ("model.name", "data.shards", "data.max_samples", "data.image_keys", "data.caption_key")

HELP = """\
usage: python -m recaption.retry RUN [KEY=VALUE …] [--config-dir DIR]
       python -m recaption.retry RUN --status STATE … --reason TEXT … -o NEW [KEY=VALUE …]

Submits a run's missing shards again, with the configuration of its last submission. Keys outside the
fingerprint may change (slurm.*, engine batch sizes, data.range, wait, …); a group such as
slurm=mysite replaces its whole section. Without data.range, every shard that was ever selected and
has no marker is submitted. slurm.setup and slurm.additional are never stored, since they may hold
secrets: where they were used, name their preset again, or give them as slurm.setup=[…].

With --status or --reason, a new run NEW is made: published shards of RUN that hold no such sample are
hard-linked; in the others such samples are done again, with KEY=VALUE, and all others keep their
rows. Shards that RUN has not published are left for a later retry of NEW. RUN itself is only read.

  --status STATE     captioned, filtered, rejected or failed; may be repeated, or take several
  --reason TEXT      samples whose reason contains TEXT (any case); may be repeated, or take several
  -o NEW             the new run's directory
  --config-dir DIR   a folder with presets of your own

Exit code as launch: 0 submitted, or everything published where it waits; 1 something is missing; 2 for
a wrong use, such as a key inside the fingerprint.
"""


@dataclass
class _Options:
    words: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    output: str | None = None
    config_dir: str | None = None


@dataclass(frozen=True)
class _Wanted:
    """The configuration that a retry asks for."""

    config: Config
    prompts: list[Prompt]
    model: dict[str, Any]
    covered: dict[str, Any]  # the identity that it makes
    keys: list[str]


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    options = _parse(arguments)
    paths, run = open_run(options.runs[0])
    submissions = read_submissions(paths)
    if not submissions:
        raise UserError(f"{paths.root}: nothing was ever submitted here; launch it again")
    wanted = _compose(paths, run, submissions[-1], options)
    if options.output:
        return _into_new(paths, run, wanted, options)
    if wanted.covered != run.identity:
        changed = "; ".join(differences(run.identity, wanted.covered))
        raise UserError(
            f"retry: the run in {paths.root} was made with other values: {changed}. "
            "Leave them, or make another run with launch"
        )
    selected = _selected(wanted, run, submissions)
    if wanted.config.dry_run:
        marked = paths.marked()
        missing = [p for p in selected if run.shards[p].name not in marked]
        return show_plan(paths, run, wanted.config, missing).code
    return submit_missing(paths, run, wanted.config, selected).code


def _selected(wanted: _Wanted, run: Run, submissions: Sequence[Submission]) -> list[int]:
    if "data.range" in wanted.keys:
        return select(wanted.config.data.range, len(run.shards))
    return sorted({position for s in submissions for position in s.selected})


def _compose(paths: RunPaths, run: Run, last: Submission, options: _Options) -> _Wanted:
    """The last submission's configuration with the command line's words over it."""
    words = overrides.prepare(options.words)
    keys = [word.partition("=")[0].lstrip("+") for word in words]
    for key in keys:
        if key.startswith("~"):
            raise UserError(f"{key}: a retry can set keys, not delete them")
        if key.startswith("output."):
            raise UserError(f"{key}: a retry keeps it; -o NEW (with --status) makes a new run")
    fresh = OmegaConf.to_container(
        compose_config(words, config_dir=options.config_dir), resolve=True
    )
    assert isinstance(fresh, dict)
    stored: dict[str, Any] = {**last.config}
    for key in keys:
        _put(stored, fresh, key.split("."))
    _need_left_out(stored, last, keys)
    config = typed_config(stored)
    config.output.dir = str(paths.root)
    check(config)
    prompts = _prompts(config, run, keys, words, options)
    sections = {key.split(".")[0] for key in keys}
    if sections <= set(FREE):
        return _Wanted(config, prompts, run.model, run.identity, keys)
    model = _model(config, run, keys) if "model" in sections else run.model
    urls = expand(config.data.shards) if "data.shards" in keys else [s.url for s in run.shards]
    try:
        covered = identity(config, prompts, model["files"], urls)
    except OSError as e:
        raise UserError(f"{e.filename}: cannot be read: {e.strerror}") from None
    return _Wanted(config, prompts, model, covered, keys)


def _put(stored: dict[str, Any], fresh: Any, path: list[str]) -> None:
    """Copy one key, or one whole section, from the fresh configuration."""
    node = stored
    for part in path[:-1]:
        node[part] = dict(node[part] or {})
        node, fresh = node[part], fresh[part]
    node[path[-1]] = fresh[path[-1]]


def _need_left_out(stored: dict[str, Any], last: Submission, keys: list[str]) -> None:
    if stored["slurm"]["kind"] != "cluster" or "slurm" in keys:
        return
    for key in last.left_out:
        if not any(k == key or k.startswith(f"{key}.") for k in keys):
            raise UserError(
                f"{key}: the run was submitted with it, and it is not stored, since it may hold "
                f"secrets; name its preset again (slurm=NAME --config-dir DIR), or give {key}=…"
            )


def _prompts(
    config: Config, run: Run, keys: list[str], words: list[str], options: _Options
) -> list[Prompt]:
    touched = [k for k in keys if k == "prompts" or k.split(".")[0] == "prompt"]
    if not touched:
        return run.prompts
    if config.prompts is not None:
        if touched != ["prompts"]:
            raise UserError("prompts: excludes prompt and prompt.*; give one or the other")
        return named_prompts(config.prompts, words, config_dir=options.config_dir)
    check_prompts([config.prompt])
    return [config.prompt]


def _model(config: Config, run: Run, keys: list[str]) -> dict[str, Any]:
    """The model's files; a branch is not followed beyond the commit that the run was made with."""
    model = config.model
    places = ("model", "model.repo", "model.revision", "model.path")
    if not any(key in places for key in keys) and run.model["revision"]:
        model = replace(model, revision=run.model["revision"])
    return resolve(model, needed=config.engine.kind != "fake").record()


def _into_new(paths: RunPaths, run: Run, wanted: _Wanted, options: _Options) -> int:
    """Make the new run and submit its affected shards."""
    assert options.output is not None
    target = RunPaths(Path(options.output).expanduser().absolute())
    if target.root.resolve() == paths.root.resolve():
        raise bad_value("-o", options.output, "is the run itself; choose another folder")
    _check_shape(run, wanted)
    state = scan(paths, run)
    affected = _affected(paths, state, options)
    positions = {shard.name: position for position, shard in enumerate(run.shards)}
    if not affected:
        print(f"nothing to do: no sample of {paths.root} is meant")
        return 0
    how = {"command": "retry", "status": options.statuses, "reason": options.reasons}
    new = Run(
        fingerprint=fingerprint(wanted.covered),
        identity=wanted.covered,
        prompts=wanted.prompts,
        model=wanted.model,
        shards=run.shards,
        versions=versions(),
        created=time.time(),
        parent=parent_record(paths, run, how),
    )
    wanted.config.output.dir = str(target.root)
    selected = sorted(positions[name] for name in affected)
    if wanted.config.dry_run:
        return show_plan(target, new, wanted.config, selected).code
    new = make_run(target, new)
    untouched = [name for name in state.done if name not in affected]
    take_over(paths, state, target, new, untouched)
    again = sum(
        keep_rows(paths, target, new, name, lambda row: not _is_meant(row, options))
        for name in affected
    )
    print(f"{len(untouched)} shards linked; {again} samples of {len(affected)} shards to do again")
    missing = state.total - len(state.done)
    if missing:
        print(f"{missing} shards that {paths.root} lacks are left for a retry of {target.root}")
    return submit_missing(target, new, wanted.config, selected).code


def _check_shape(run: Run, wanted: _Wanted) -> None:
    """Kept and new samples stand in the same shards, so what shapes a shard stays."""
    names = [p.name for p in run.prompts]
    changed = [k for k in SHAPING if run.identity[k] != wanted.covered[k]]
    if names != [p.name for p in wanted.prompts]:
        changed.append("prompt.name")
    if run.identity["watermark"] != wanted.covered["watermark"]:
        changed.append("watermark")
    if changed:
        raise UserError(
            f"{changed[0]}: cannot change for some samples of a run; "
            "launch a run of its own with another output.dir"
        )


def _affected(paths: RunPaths, state: RunState, options: _Options) -> set[str]:
    """Published shards that hold a sample which is meant; sidecars are read where they may."""
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
    lists = {"--status": options.statuses, "--reason": options.reasons}
    single = {"-o": "output", "--output": "output", "--config-dir": "config_dir"}
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
        elif argument.startswith("-"):
            raise bad_choice("option", argument, ["--help", *lists, "-o", "--config-dir"])
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
    if options.output and not chooses:
        raise UserError("-o: needs --status or --reason, which say what to do again")


if __name__ == "__main__":
    from recaption.__main__ import run

    run(main)
