"""The configuration of a retry: the last submission's, changed by the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf

from recaption.config import overrides
from recaption.config.check import check
from recaption.config.compose import compose_config, named_prompts, user_errors
from recaption.config.records import typed_config
from recaption.config.schema import Config, Prompt
from recaption.errors import UserError
from recaption.model.files import resolve
from recaption.model.prompt import check_prompts
from recaption.run.addresses import public
from recaption.run.chat_template import kept_template
from recaption.run.identity import as_frozen, identity
from recaption.run.paths import RunPaths
from recaption.run.record import Run, Submission
from recaption.shard.patterns import expand

FREE = {
    "slurm",
    "task",
    "wait",
    "force",
    "dry_run",
}  # sections that the fingerprint knows nothing of
WITH = {"slurm": ["slurm", "task"]}  # a site's preset says both
FILES = {"model", "model.repo", "model.revision", "model.path"}


@dataclass(frozen=True)
class Wanted:
    """The configuration that a retry asks for; `covered` is its identity."""

    config: Config
    prompts: list[Prompt]
    model: dict[str, Any]
    covered: dict[str, Any]
    keys: list[str]  # named on the command line


def recompose(
    paths: RunPaths, run: Run, last: Submission, words: Sequence[str], config_dir: str | None
) -> Wanted:
    """Apply words to a submission's configuration; naming a group's preset replaces its section.

    Raises UserError for what launch would refuse too, and for needed values that were not stored.
    """
    prepared = overrides.prepare(words)
    keys = [word.partition("=")[0].lstrip("+") for word in prepared]
    for key in keys:
        if key.startswith("~"):
            raise UserError(f"{key}: a retry can set keys, not delete them")
        if key.startswith("output."):
            raise UserError(f"{key}: a retry keeps it; -o NEW (with --status) makes a new run")
    fresh = compose_config(prepared, config_dir=config_dir, version=run.generation)
    with user_errors():
        plain = OmegaConf.to_container(fresh, resolve=True)
    stored: dict[str, Any] = {**last.config}
    for key in (section for named in keys for section in WITH.get(named, [named])):
        _put(stored, plain, key.split("."))
    for key, others in (("path", ("repo", "revision")), ("repo", ("path", "revision"))):
        if f"model.{key}" in keys:  # another source than the run's
            stored["model"].update({o: None for o in others if f"model.{o}" not in keys})
    _need_left_out(stored, last, keys)
    config = typed_config(stored, str(paths.submission(last.number)))
    config.output.dir = str(paths.root)
    check(config)
    if not {"model", "model.chat_template"} & set(keys):
        kept = kept_template(paths, run.identity)
        config.model.chat_template = kept or config.model.chat_template
    prompts = _prompts(config, run, keys, prepared, config_dir)
    sections = {key.split(".")[0] for key in keys}
    if sections <= FREE:
        return Wanted(config, prompts, run.model, run.identity, keys)
    model = _model(config, run, keys) if "model" in sections else run.model
    urls = expand(config.data.shards) if "data.shards" in keys else [s.url for s in run.shards]
    covered = identity(config, prompts, model["files"], urls)
    same = [public(s.url) for s in run.shards] == list(map(public, urls))
    covered = as_frozen(covered, run.identity, same_inputs=same)
    return Wanted(config, prompts, model, covered, keys)


def _put(stored: dict[str, Any], fresh: Any, path: list[str]) -> None:
    """Copy one key, or one whole section, from a fresh configuration."""
    node = stored
    for part in path[:-1]:
        node[part] = dict(node.get(part) or {})
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
    config: Config, run: Run, keys: list[str], words: list[str], config_dir: str | None
) -> list[Prompt]:
    touched = [k for k in keys if k == "prompts" or k.split(".")[0] == "prompt"]
    if not touched:
        return run.prompts
    if config.prompts is None:
        check_prompts([config.prompt])
        return [config.prompt]
    if touched != ["prompts"]:
        raise UserError("prompts: excludes prompt and prompt.*; give one or the other")
    prompts = named_prompts(config.prompts, words, config_dir=config_dir, version=run.generation)
    check_prompts(prompts)
    return prompts


def _model(config: Config, run: Run, keys: list[str]) -> dict[str, Any]:
    """The model's files, at the commit with which the run was made even if a branch has moved."""
    model = config.model
    if not FILES & set(keys) and run.model["revision"]:
        model = replace(model, revision=run.model["revision"])
    return resolve(model, needed=config.engine.kind != "fake", rules=run.rules).record()
