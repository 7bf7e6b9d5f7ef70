"""Makes a run directory, or finds that it already holds the wanted run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from recaption.config.effects import refusals, remarks
from recaption.config.schema import Config, Prompt
from recaption.engine.devices import idle_gpus
from recaption.errors import UserError, bad_value
from recaption.launch.preflight import check_engines, check_vllm, gpus_of_task
from recaption.launch.prompt_fields import check_fields
from recaption.model.files import check_architectures, resolve
from recaption.model.hub import at_commit
from recaption.prepare.score import pin_scorers
from recaption.run import shared
from recaption.run.addresses import public
from recaption.run.chat_template import keep_template
from recaption.run.creation import create, refuse_foreign
from recaption.run.folders import group_number
from recaption.run.identity import as_frozen, differences, fingerprint, identity
from recaption.run.mistaken_tiny import refuse_mistaken
from recaption.run.paths import RunPaths, stem
from recaption.run.record import RULES, InputShard, Run, read_run
from recaption.versions import versions


def run_at(folder: str) -> Run | None:
    """The run in this folder; None if there is none."""
    paths = RunPaths(Path(folder).expanduser().absolute())
    return read_run(paths) if shared.exists(paths.run_json) else None


def freeze(
    config: Config,
    prompts: Sequence[Prompt],
    shards: list[InputShard],
    there: Run | None = None,
    *,
    named: Collection[str] = (),
    write: bool = True,
) -> tuple[RunPaths, Run]:
    """The run of this configuration: a new one, or the one that is `there` (found by run_at).

    Raises UserError when output.dir holds another run, inputs, or foreign tars, or cannot be
    written, and when a new run is refused for the keys that were `named`. With `write=False`
    nothing is created.
    """
    paths = RunPaths(Path(config.output.dir).expanduser().absolute())
    if there:
        refuse_mistaken(paths, there)
    _refuse_inputs(paths, shards)
    if there is None:
        refuse_effects(config, prompts, named)
        _refuse_long_names(paths, shards)
        if config.output.group is not None:
            group_number(config.output.group)
        check_fields(config, prompts, shards)
    pin_scorers(config, exists=there is not None)
    rules = there.rules if there else RULES
    wanted = config.model
    if there:
        wanted = at_commit(wanted, there.model, named="model.revision" in named)
    else:
        check_vllm(config)
    model = resolve(wanted, needed=config.engine.kind != "fake", rules=rules)
    if there is None:
        check_architectures(config.model, model)
        check_engines(config, prompts, model)
    covered = identity(config, prompts, model.files, [s.url for s in shards])
    if there:
        same = [public(s.url) for s in there.shards] == [public(s.url) for s in shards]
        covered = as_frozen(covered, there.identity, same_inputs=same)
        if "data.damaged" not in named:
            config.data.damaged = there.identity.get("data.damaged", config.data.damaged)
    run = Run(
        fingerprint=fingerprint(covered),
        identity=covered,
        prompts=list(prompts),
        model=model.record(),
        shards=[shard.stored for shard in shards],
        versions=versions(),
        created=time.time(),
        rules=rules,
    )
    if not there and not shared.exists(paths.run_json):
        if not write:
            refuse_foreign(paths)
            return paths, run
        if create(paths, run, config.output.group):
            keep_template(paths, covered, config.model.chat_template)
            return paths, run
    frozen = there or read_run(paths)
    _compare(paths, frozen, run)
    if write:
        keep_template(paths, frozen.identity, config.model.chat_template)
    return paths, frozen


def refuse_effects(config: Config, prompts: Sequence[Prompt], named: Collection[str]) -> None:
    """Raise UserError if a new run is refused for its combination of keys."""
    if messages := refusals(config, prompts, named):
        raise UserError(messages[0])


def warn_of_effects(config: Config, prompts: Sequence[Prompt], named: Collection[str]) -> None:
    """Warn, once nothing is refused any more, of keys without effect and of refusals for new runs."""
    found = refusals(config, prompts, named) + remarks(config, named)
    idle = idle_gpus(config, gpus_of_task(config))
    for message in [*found, idle] if idle else found:
        print(f"warning: {message}", file=sys.stderr)


def _compare(paths: RunPaths, frozen: Run, wanted: Run) -> None:
    if frozen.fingerprint != wanted.fingerprint:
        changed = "; ".join(differences(frozen.identity, wanted.identity))
        raise UserError(
            f"output.dir={paths.root}: holds a run with another configuration: {changed}. "
            "Choose another output.dir, or the values it was made with"
        )
    sizes = {s.name: s.size for s in frozen.shards}
    for shard in wanted.shards:
        if shard.size is not None and sizes[shard.name] not in (None, shard.size):
            raise UserError(
                f"data.shards: {public(shard.url)} has changed since the run in {paths.root} was made "
                f"({sizes[shard.name]} bytes then, {shard.size} now)"
            )


def _refuse_inputs(paths: RunPaths, shards: list[InputShard]) -> None:
    root = os.path.realpath(paths.root)
    folders = {os.path.dirname(s.url.removeprefix("file://")) for s in shards}
    if any(os.path.realpath(folder) == root for folder in folders if folder.startswith("/")):
        raise bad_value("output.dir", paths.root, "holds input shards; choose another folder")


def _refuse_long_names(paths: RunPaths, shards: list[InputShard]) -> None:
    """Raise UserError for a name so long that names of journals and temporary files would not fit."""
    most = paths.longest_stem()
    for shard in shards:
        length = len(os.fsencode(stem(shard.name)))
        if length > most:
            raise UserError(
                f"data.shards: {shard.url}: its name has {length} bytes, and in {paths.root} there is "
                f"room for {most} (file names there have an end of ours); give it a shorter one"
            )
