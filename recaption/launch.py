"""recaption.launch: composes, validates, plans and freezes a run, then submits its tasks."""

from __future__ import annotations

import signal
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recaption.config import overrides
from recaption.config.compose import compose_config, named_prompts, sweep_points, to_config
from recaption.config.schema import Config, Prompt
from recaption.errors import UserError
from recaption.freeze import freeze
from recaption.options import Options, parse
from recaption.plan import data_name, expand, inputs, select, slices
from recaption.prompt import check_prompts
from recaption.run.paths import RunPaths
from recaption.run.record import (
    InputShard,
    Run,
    Submission,
    add_jobs,
    plain_config,
    write_submission,
)

DEFAULT_DIR = "outputs/${data.name}/${model.name}/${prompt.name}"
CLUSTER_TASKS = 64  # at most, where slurm.tasks is not set
SHOWN_FAILURES = 5


@dataclass(frozen=True)
class Point:
    """One composed run of a launch."""

    words: list[str]
    config: Config
    prompts: list[Prompt]
    shown: DictConfig


@dataclass(frozen=True)
class Outcome:
    """What became of a point, for the sweep's table."""

    run: Path | None
    jobs: str
    code: int
    text: str


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parse(arguments)
    if options.help:
        from recaption.help import launch_help

        print(launch_help(), end="")
        return 0
    if options.multirun:
        groups = sweep_points(options.words)
    else:
        groups = [overrides.prepare(options.words)]
    points = [_compose(words, options) for words in groups]
    if options.show_config:
        for point in points:
            print(OmegaConf.to_yaml(point.shown, resolve=options.resolve), end="")
        return 0
    _check_distinct(points)
    if len(points) == 1:
        return _launch(points[0]).code
    return _sweep(points)


def _compose(words: list[str], options: Options) -> Point:
    cfg = compose_config(words, config_dir=options.config_dir, config_name=options.config_name)
    default_dir = OmegaConf.to_container(cfg)["output"]["dir"] == DEFAULT_DIR  # type: ignore[index,call-overload]
    if OmegaConf.is_missing(cfg.data, "shards"):
        if not options.show_config:
            raise UserError(
                "data.shards: needed; a brace pattern such as /data/{00000..00007}.tar, a glob, "
                "a list, or a .txt file of lines"
            )
    elif cfg.data.name is None:
        cfg.data.name = data_name(expand(cfg.data.shards)[0])
    prompts: list[Prompt] = []
    if cfg.prompts is not None:
        if any(w.lstrip("+").startswith(("prompt=", "prompt.")) for w in words):
            raise UserError("prompts: excludes prompt and prompt.*; give one or the other")
        names = list(cfg.prompts)
        if not names:
            raise UserError("prompts=[]: name at least one preset of the prompt group")
        prompts = named_prompts(names, words, config_dir=options.config_dir)
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
    """Two points in one directory would be one run with two configurations."""
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
    """Freeze and submit one run; waits for it where that is asked for."""
    config = point.config
    shards = inputs(config)
    selected = select(config.data.range, len(shards))
    if config.dry_run:
        return _dry_run(point, shards, selected)
    paths, run = freeze(config, point.prompts, shards)
    marked = paths.marked()
    missing = [p for p in selected if run.shards[p].name not in marked]
    print(f"run directory: {paths.root}")
    if not missing:
        print(f"nothing to do: all {len(selected)} selected shards are published")
        return Outcome(paths.root, "-", 0, "nothing to do")
    submission = Submission(
        number=0,
        config=plain_config(config),
        selected=selected,
        slices=slices(missing, run.shards, _tasks(config, len(missing))),
        created=time.time(),
    )
    tag = uuid.uuid4().hex
    submission = write_submission(paths, submission, tag)
    print(
        f"{len(missing)} of {len(selected)} selected shards to do, {len(submission.slices)} tasks"
    )
    if config.slurm.kind == "cluster":
        return _on_cluster(paths, run, submission, config, tag)
    return _here(paths, run, submission, config)


def _tasks(config: Config, shards: int) -> int:
    default = CLUSTER_TASKS if config.slurm.kind == "cluster" else 1
    return min(config.slurm.tasks or default, shards)


def _dry_run(point: Point, shards: list[InputShard], selected: list[int]) -> Outcome:
    config = point.config
    paths, run = freeze(config, point.prompts, shards, write=False)
    parts = slices(selected, run.shards, _tasks(config, len(selected)))
    print(f"run directory: {paths.root} (dry run: nothing is written or submitted)")
    print(f"fingerprint: {run.fingerprint}")
    for task, part in enumerate(parts):
        names = ", ".join(run.shards[p].name for p in part[:4])
        more = f", … {len(part) - 4} more" if len(part) > 4 else ""
        print(f"task {task}: {len(part)} shards: {names}{more}")
    if config.slurm.kind == "cluster":
        from recaption.submit import sbatch_text

        print(sbatch_text(paths, config, len(parts)))
    return Outcome(paths.root, "-", 0, "dry run")


def _on_cluster(
    paths: RunPaths, run: Run, submission: Submission, config: Config, tag: str
) -> Outcome:
    from recaption.slurm import queued
    from recaption.submit import log_pattern, submit

    jobs = submit(paths, submission, config)
    add_jobs(paths, Submission(**{**vars(submission), "jobs": jobs}), tag)
    arrays = sorted({job.split("_")[0] for job in jobs})
    print(f"job ids: {' '.join(arrays)}")
    print(f"logs: {log_pattern(paths, arrays)}")
    _next_commands(paths)
    code = 0
    if config.wait:
        code = _wait(paths, run, submission, lambda: queued(arrays))
    return Outcome(paths.root, ",".join(arrays), code, "submitted")


def _here(paths: RunPaths, run: Run, submission: Submission, config: Config) -> Outcome:
    from recaption.local import LocalTasks

    waiting = config.wait is not False
    tasks = LocalTasks(paths, submission, config, tied=waiting)
    jobs = [f"{submission.number}-{i}" for i in range(len(submission.slices))]
    print(f"job ids: {' '.join(jobs)}")
    print(f"logs: {tasks.logs()}")
    _next_commands(paths)
    sys.stdout.flush()
    if not waiting:
        if tasks.at_once < len(submission.slices):
            raise UserError(
                "wait=false: with slurm=local all tasks start at once; lower slurm.tasks"
            )
        tasks.alive()
        return Outcome(paths.root, ",".join(jobs), 0, "started")
    with _interruptible():
        try:
            code = _wait(paths, run, submission, tasks.alive)
        except KeyboardInterrupt:
            tasks.stop()
            print("stopped; the same command goes on where it stopped", file=sys.stderr)
            return Outcome(paths.root, ",".join(jobs), 1, "stopped")
    return Outcome(paths.root, ",".join(jobs), code, "done" if code == 0 else "incomplete")


def _wait(paths: RunPaths, run: Run, submission: Submission, alive: Any) -> int:
    from recaption.watch import follow

    state = follow(paths, run, submission.selected, submission.number, alive)
    names = [run.shards[p].name for p in submission.selected]
    unpublished = [n for n in names if n not in state.done]
    counts = ", ".join(f"{n} {status}" for status, n in sorted(state.samples().items()) if n)
    print(f"{len(names) - len(unpublished)} of {len(names)} shards published; samples: {counts}")
    for name in unpublished[:SHOWN_FAILURES]:
        reason = state.failed.get(name, {}).get("reason", "not finished; see the logs")
        print(f"  {name}: {reason}", file=sys.stderr)
    if len(unpublished) > SHOWN_FAILURES:
        print(f"  … and {len(unpublished) - SHOWN_FAILURES} more", file=sys.stderr)
    return 1 if unpublished else 0


def _next_commands(paths: RunPaths) -> None:
    print(f"next: python -m recaption.status {paths.root}")


def _sweep(points: list[Point]) -> int:
    """Launch every point, whatever becomes of the others; the worst exit code wins."""
    outcomes = []
    for point in points:
        try:
            outcomes.append(_launch(point))
        except UserError as e:
            print(f"{_label(point, points)}: {e}", file=sys.stderr)
            outcomes.append(Outcome(None, "-", 2, "refused"))
    print(f"\n{'point':40} {'jobs':16} {'result':14} run directory")
    for point, outcome in zip(points, outcomes, strict=True):
        where = outcome.run or point.config.output.dir
        print(f"{_label(point, points):40} {outcome.jobs:16} {outcome.text:14} {where}")
    return max(o.code for o in outcomes)


def _label(point: Point, points: list[Point]) -> str:
    common = set.intersection(*(set(p.words) for p in points))
    return " ".join(w for w in point.words if w not in common)


class _interruptible:
    """TERM ends a waiting launch as Ctrl-C does, so that its tasks are stopped."""

    def __enter__(self) -> None:
        def interrupt(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        self.before = signal.signal(signal.SIGTERM, interrupt)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.before)


if __name__ == "__main__":
    from recaption.__main__ import run

    run(main)
