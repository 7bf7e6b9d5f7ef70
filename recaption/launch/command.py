"""recaption.launch: composes, validates, plans and freezes a run, then submits its tasks."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recaption.config import earlier, overrides
from recaption.config.compose import (
    compose_config,
    named_prompts,
    sweep_points,
    to_config,
    user_errors,
)
from recaption.config.schema import Config, Prompt
from recaption.errors import RecaptionError, UserError
from recaption.launch.freeze import freeze, run_at, warn_of_effects
from recaption.launch.options import Options
from recaption.launch.plan import data_name, inputs, select
from recaption.launch.submission import STOPPED, Outcome, show_plan, submit_missing, waited
from recaption.model.prompt import check_prompts
from recaption.run.record import Run
from recaption.shard.patterns import first_shard, patterns_of

NODES_OWN = ("/tmp", "/var/tmp", "/dev/shm")
DEFAULT_DIR = "outputs/${data.name}/${model.name}/${prompt.name}"


@dataclass(frozen=True)
class Point:
    """One composed run of a launch, and the run that exists already, if any."""

    words: list[str]
    config: Config
    prompts: list[Prompt]
    shown: DictConfig
    there: Run | None = None


def launch(arguments: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    options = Options.of(arguments)
    if arguments.multirun:
        groups = sweep_points(arguments.words)
    else:
        groups = [overrides.prepare(arguments.words)]
    with user_errors():
        points = [_point(words, options) for words in groups]
        if options.show_config:
            for point in points:
                print(OmegaConf.to_yaml(point.shown, resolve=arguments.resolve), end="")
            return 0
    _check_distinct(points)
    if len(points) == 1:
        return waited([_launch(points[0])])[0].code
    return _sweep(points)


def _point(words: list[str], options: Options) -> Point:
    """The run that prepared words stand for: today's, or one that an earlier version made of them.

    A run keeps the defaults and presets of the version that froze it, and today's refusals do not
    apply to it.
    """
    refusal, point = None, None
    try:
        point = compose_point(words, options)
    except UserError as e:
        refusal = e
    if options.show_config and point:
        return point
    there = run_at(point.config.output.dir) if point else None
    if point and there and there.generation is None:
        return replace(point, there=there)
    for version in reversed(earlier.VERSIONS):
        try:
            then = compose_point(words, options, version=version)
        except UserError:
            continue
        same = point and point.config.output.dir == then.config.output.dir
        found = there if same else run_at(then.config.output.dir)
        if found and found.generation == version:
            return replace(then, there=found)
    if point is None:
        assert refusal is not None
        raise refusal
    return replace(point, there=there)


def compose_point(
    words: list[str], options: Options, *, shards_needed: bool = True, version: str | None = None
) -> Point:
    """One run of prepared words, with the defaults and presets of an earlier `version`, if any.

    Raises UserError for a configuration that is not valid, and if data.shards is missing although
    shards are needed.
    """
    compose: dict[str, Any] = {
        "config_dir": options.config_dir,
        "config_name": options.config_name,
        "version": version,
    }
    cfg = compose_config(words, **compose)
    default_dir = OmegaConf.to_container(cfg)["output"]["dir"] == DEFAULT_DIR  # type: ignore[index,call-overload]
    if OmegaConf.is_missing(cfg.data, "shards") or cfg.data.shards is None:
        if not shards_needed:
            cfg.data.shards = []
            cfg.data.name = cfg.data.name or "data"
        elif not options.show_config:
            raise UserError(
                "data.shards: needed; a brace pattern such as /data/{00000..00007}.tar, a glob, "
                "a folder, a list, or a .txt file of lines"
            )
    elif cfg.data.name is None:
        cfg.data.name = data_name(first_shard(cfg.data.shards))
    prompts: list[Prompt] = []
    if cfg.prompts is not None:
        if any(w.lstrip("+").startswith(("prompt=", "prompt.")) for w in words):
            raise UserError("prompts: excludes prompt and prompt.*; give one or the other")
        names = list(cfg.prompts)
        if not names:
            raise UserError("prompts=[]: name at least one preset of the prompt group")
        prompts = named_prompts(names, words, **compose)
        cfg.prompt.name = "+".join(p.name for p in prompts)
    if default_dir:
        suffix = f"-pilot{cfg.data.max_samples}" if cfg.data.max_samples else ""
        suffix += "-fake" if cfg.engine.kind == "fake" else ""
        cfg.output.dir = DEFAULT_DIR + suffix
    if options.show_config:
        return Point(words, Config(), [], cfg)
    config = to_config(cfg)
    config.output.dir = str(Path(config.output.dir).expanduser().absolute())
    prompts = prompts or [config.prompt]
    check_prompts(prompts)
    return Point(words, config, prompts, cfg)


def _check_distinct(points: list[Point]) -> None:
    """Raise UserError for two points of a sweep with the same run directory."""
    first: dict[str, Point] = {}
    for point in points:
        other = first.setdefault(point.config.output.dir, point)
        if other is not point:
            swept = {w.split("=")[0] for w in set(point.words) ^ set(other.words)}
            keys = ", ".join(sorted(swept))
            raise UserError(
                f"output.dir={point.config.output.dir}: two points of the sweep would share it; "
                f"let it contain what is swept, such as ${{{sorted(swept)[0]}}} ({keys})"
            )


def _launch(point: Point) -> Outcome:
    """Freeze and submit one run, and wait for it if the user asked for that."""
    config = point.config
    patterns = patterns_of(point.there)
    shards = inputs(config, patterns)
    selected = select(config.data.range, len(shards))
    named = {word.partition("=")[0].lstrip("+~") for word in point.words}
    paths, run = freeze(
        config, point.prompts, shards, point.there, named=named, write=not config.dry_run
    )
    warn_of_effects(config, point.prompts, named)
    if remark := patterns.remark():
        print(remark)
    doubt = _unshared(point.shown.output.dir) if config.slurm.kind == "cluster" else ""
    if not config.dry_run:
        return submit_missing(paths, run, config, selected, doubt=doubt)
    outcome = show_plan(paths, run, config, selected)
    if doubt:
        print(f"warning: {doubt}", file=sys.stderr)
    return outcome


def _unshared(given: str) -> str:
    """A warning if the given output.dir is probably not visible to the nodes, else ''."""
    path = Path(given).expanduser()
    if own := next((folder for folder in NODES_OWN if path.is_relative_to(folder)), None):
        return f"output.dir={path}: {own} is each node's own, and all have to see the run"
    if not path.is_absolute():
        return f"output.dir={path}: is relative, and all nodes have to see {path.absolute()}"
    return ""


def _sweep(points: list[Point]) -> int:
    """Launch every point, even if others fail; returns the worst exit code."""
    outcomes: list[Outcome] = []
    for point in points:
        if any(o.text == STOPPED for o in outcomes):
            outcomes.append(Outcome(None, "-", 1, "not begun"))
            continue
        try:
            outcomes.append(_launch(point))
        except RecaptionError as e:
            print(f"{_label(point, points)}: {e}", file=sys.stderr)
            code, text = (2, "refused") if isinstance(e, UserError) else (1, "failed")
            outcomes.append(Outcome(None, "-", code, text))
    outcomes = waited(outcomes)  # for Slurm's jobs, once all are submitted
    print(f"\n{'point':40} {'jobs':16} {'result':14} run directory")
    for point, outcome in zip(points, outcomes, strict=True):
        where = outcome.run or point.config.output.dir
        print(f"{_label(point, points):40} {outcome.jobs:16} {outcome.text:14} {where}")
    return max(o.code for o in outcomes)


def _label(point: Point, points: list[Point]) -> str:
    common = set.intersection(*(set(p.words) for p in points))
    return " ".join(w for w in point.words if w not in common)
