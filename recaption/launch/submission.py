"""Submits the missing shards of a frozen run and waits for them, for launch and retry."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from recaption.config.schema import Config
from recaption.engine.sockets import too_long
from recaption.errors import UserError
from recaption.launch.interrupt import interruptible
from recaption.launch.one_at_a_time import give_way, refuse_at_work
from recaption.launch.plan import slices
from recaption.run import dataset_card
from recaption.run.alarm import KEY, SHOWN, of_shards, reasons_of
from recaption.run.folders import make_folders
from recaption.run.liveness import this_process
from recaption.run.paths import RunPaths
from recaption.run.record import (
    Run,
    Submission,
    add_jobs,
    left_out,
    plain_config,
    submission_numbers,
    write_submission,
)
from recaption.run.scan import RunState, named, scan
from recaption.shard.input_locations import Carried, carried
from recaption.versions import versions

CLUSTER_TASKS = 64  # at most, if slurm.tasks is not set
SHOWN_FAILURES = 5
STOPPED = "stopped"


@dataclass(frozen=True)
class Outcome:
    """The result of a submission, for a sweep's table; `code` is the command's exit code."""

    run: Path | None
    jobs: str
    code: int
    text: str
    # waits until its jobs have ended and returns the exit code
    wait: Callable[[], int] | None = None


def submit_missing(
    paths: RunPaths,
    run: Run,
    config: Config,
    selected: list[int],
    *,
    doubt: str = "",
    moved: bool = False,
) -> Outcome:
    """Submit the unpublished shards among `selected` (positions in the run).

    Waits for local tasks if `config` says so; waited() waits for Slurm's jobs. config.data.shards
    says where the inputs are, if they have moved or if the run does not record it. Prints the run
    directory, job ids, the log pattern and the next commands; with Slurm also warnings, of which
    `doubt` is one. Raises UserError when Slurm refuses the job.
    """
    marked = paths.marked()
    names = {run.shards[p].name for p in selected}
    missing = [p for p in selected if run.shards[p].name not in marked]
    parts = slices(missing, run.shards, _tasks(config, len(missing)))
    print(f"run directory: {paths.root}")
    make_folders(paths, config.output.group)
    if not missing:
        state, given_up = _given_up(paths, run, names)
        # a task may have been killed just before it did this
        dataset_card.complete(paths, run, uuid.uuid4().hex)
        rest = f", but for those {given_up}" if given_up else ""
        print(f"nothing to do: all {len(selected)} selected shards are published{rest}")
        return Outcome(paths.root, "-", 1 if _alarm(config, state, names) else 0, "nothing to do")
    if config.slurm.kind != "cluster" and (reason := too_long()):
        raise UserError(reason)
    seen = submission_numbers(paths)
    if not config.force:
        refuse_at_work(paths, seen)
    _warn_of_other_versions(run)
    waits_here = config.slurm.kind != "cluster" and config.wait is not False
    us = asdict(process) if (process := this_process()) else None
    handed_on = _carried(paths, run, config, len(parts), moved)
    submission = Submission(
        number=0,
        config=plain_config(replace(config, force=False)),  # force holds for this submission only
        selected=selected,
        slices=parts,
        created=time.time(),
        left_out=left_out(config),
        processes=[us] if us and waits_here else [],
        inputs=handed_on.stored,
        submitter=None if waits_here else us,
    )
    tag = uuid.uuid4().hex
    _, given_up = _given_up(paths, run, names)
    submission = write_submission(paths, submission, tag)
    if not config.force:
        give_way(paths, submission, seen, tag)
    rest = f"; {given_up}" if given_up else ""
    print(f"{len(missing)} of {len(selected)} selected shards to do, {len(parts)} tasks{rest}")
    if config.slurm.kind == "cluster":
        return _on_cluster(paths, run, submission, config, tag, doubt, handed_on.environment)
    return _here(paths, run, submission, config, tag, handed_on.environment)


def _given_up(paths: RunPaths, run: Run, names: Collection[str]) -> tuple[RunState, str]:
    """How far the run is, and a text that says which of these shards were given up."""
    state = scan(paths, run)
    return state, named(name for name in state.given_up if name in names)


def _carried(paths: RunPaths, run: Run, config: Config, tasks: int, moved: bool) -> Carried:
    exports = True
    if config.slurm.kind == "cluster":
        from recaption.launch.environment import exports as exports_all
        from recaption.launch.sbatch import sbatch_text

        exports = exports_all(sbatch_text(paths, config, tasks))
    return carried(run, config.data.shards, exports=exports, moved=moved)


def waited(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Wait for the jobs of outcomes that wait; Ctrl-C and TERM leave the jobs running."""
    done: list[Outcome] = []
    interrupted = False
    with interruptible():
        for outcome in outcomes:
            try:
                if outcome.wait and not interrupted:
                    code = outcome.wait()
                    text = "done" if code == 0 else "incomplete"
                    done.append(replace(outcome, code=code, text=text, wait=None))
                    continue
            except KeyboardInterrupt:
                interrupted = True
            if outcome.wait:
                print(
                    f"the jobs go on: {outcome.jobs}; `python -m recaption.stop {outcome.run}` cancels "
                    f"them, `python -m recaption.status {outcome.run}` shows them",
                    file=sys.stderr,
                )
                outcome = replace(outcome, code=1, text=STOPPED, wait=None)
            done.append(outcome)
    return done


def _warn_of_other_versions(run: Run) -> None:
    """Warn of changed package versions: they are not in the fingerprint but may change captions."""
    now = versions()
    names = sorted(n for n in {*now, *run.versions} if now.get(n) != run.versions.get(n))
    if names:
        changes = [f"{n} {run.versions.get(n, '-')} → {now.get(n, '-')}" for n in names]
        print(f"warning: other versions than when the run began: {', '.join(changes)}")


def show_plan(paths: RunPaths, run: Run, config: Config, positions: Sequence[int]) -> Outcome:
    """For dry_run=true: print what a submission of these shards would do."""
    parts = slices(positions, run.shards, _tasks(config, len(positions)))
    print(f"run directory: {paths.root} (dry run: nothing is written or submitted)")
    print(f"fingerprint: {run.fingerprint}")
    for task, part in enumerate(parts):
        names = ", ".join(run.shards[p].name for p in part[:4])
        more = f", … {len(part) - 4} more" if len(part) > 4 else ""
        print(f"task {task}: {len(part)} shards: {names}{more}")
    if config.slurm.kind == "cluster":
        from recaption.launch.sbatch import heeded, sbatch_text

        text = sbatch_text(paths, config, len(parts))
        print("\n".join([text, *heeded(text)]))
    return Outcome(paths.root, "-", 0, "dry run")


def _tasks(config: Config, shards: int) -> int:
    """How many tasks share the shards; UserError if they all have to start at once and cannot."""
    on_cluster = config.slurm.kind == "cluster"
    tasks = min(config.slurm.tasks or (CLUSTER_TASKS if on_cluster else 1), shards)
    if config.wait is False and not on_cluster:
        from recaption.launch.local_slots import places

        if (most := places(config, tasks)) < tasks:
            reason = f"with slurm=local all tasks start at once, and here is room for {most}"
            raise UserError(f"wait=false: {reason}; lower slurm.tasks={tasks}")
    return tasks


def _on_cluster(
    paths: RunPaths,
    run: Run,
    submission: Submission,
    config: Config,
    tag: str,
    doubt: str,
    more: Mapping[str, str],
) -> Outcome:
    from recaption.cli.slurm import Queue
    from recaption.launch.sbatch import heeded, log_pattern, sbatch_text, submit, warnings

    try:
        for line in heeded(sbatch_text(paths, config, len(submission.slices))):
            print(line)
        submitted = submit(paths, submission, config, more)
    except UserError:
        add_jobs(paths, replace(submission, slices=[]), tag)  # it has no tasks after all
        raise
    add_jobs(paths, replace(submission, jobs=submitted.jobs), tag)
    arrays = list(dict.fromkeys(job.split("_")[0] for job in submitted.jobs))
    print(f"job ids: {' '.join(arrays)}")
    print(f"logs: {log_pattern(paths, arrays)}")
    _next_commands(paths)
    for warning in filter(None, [*warnings(config.slurm), doubt]):
        print(f"warning: {warning}", file=sys.stderr)
    if submitted.refused:
        count, wanted = len(submitted.jobs), len(submission.slices)
        rest = "they take over the others' shards" if config.task.steal else "retry later"
        print(
            f"slurm: sbatch took {count} of {wanted} tasks ({rest}): {submitted.refused}",
            file=sys.stderr,
        )
    sys.stdout.flush()
    outcome = Outcome(paths.root, ",".join(arrays), 1 if submitted.refused else 0, "submitted")
    if not config.wait:
        return outcome
    names = {run.shards[p].name for p in submission.selected}

    def wait() -> int:
        queue = Queue(arrays)
        working = lambda: queue() and not names <= paths.marked()  # noqa: E731
        code = _wait(paths, run, submission, config, working)
        dataset_card.complete(paths, run, tag)
        return code

    return replace(outcome, wait=wait)


def _here(
    paths: RunPaths,
    run: Run,
    submission: Submission,
    config: Config,
    tag: str,
    more: Mapping[str, str],
) -> Outcome:
    from recaption.launch.local import LocalTasks

    waiting = config.wait is not False
    tasks = LocalTasks(paths, submission, config, more, tied=waiting)
    jobs = [f"{submission.number}-{i}" for i in range(len(submission.slices))]
    print(f"job ids: {' '.join(jobs)}")
    print(f"logs: {tasks.logs()}")
    _next_commands(paths)
    sys.stdout.flush()
    if not waiting:
        tasks.alive()
        processes = [asdict(process) for process in tasks.processes()]
        add_jobs(paths, replace(submission, processes=processes), tag)
        return Outcome(paths.root, ",".join(jobs), 0, "started")
    with interruptible():
        try:
            code = _wait(paths, run, submission, config, tasks.alive)
        except KeyboardInterrupt:
            tasks.stop()
            print("stopped; the same command goes on where it stopped", file=sys.stderr)
            return Outcome(paths.root, ",".join(jobs), 1, STOPPED)
    return Outcome(paths.root, ",".join(jobs), code, "done" if code == 0 else "incomplete")


def _wait(
    paths: RunPaths,
    run: Run,
    submission: Submission,
    config: Config,
    alive: Callable[[], bool],
) -> int:
    from recaption.launch.watch import follow

    state = follow(paths, run, submission.selected, submission.number, alive)
    names = [run.shards[p].name for p in submission.selected]
    unpublished = [n for n in names if n not in state.done and n not in state.given_up]
    given_up = [n for n in names if n in state.given_up]
    count = len(names) - len(unpublished) - len(given_up)
    rest = f", {named(given_up)}" if given_up else ""
    print(f"{count} of {len(names)} shards published{rest}; samples: {state.counted()}")
    for name in unpublished[:SHOWN_FAILURES]:
        reason = state.failed.get(name, {}).get("reason", "not finished; see the logs")
        print(f"  {name}: {reason}", file=sys.stderr)
    if len(unpublished) > SHOWN_FAILURES:
        print(f"  … and {len(unpublished) - SHOWN_FAILURES} more", file=sys.stderr)
    if any(name in state.failed for name in unpublished):
        command = f"python -m recaption.retry {paths.root}"
        hint = f"again: {command}; without one of them: the same with --give-up SHARD"
        print(f"  {hint}", file=sys.stderr)
    for task in state.tasks:
        if task.submission == submission.number and (fewer := task.fewer_engines()):
            print(f"  a task has {fewer}; see its log", file=sys.stderr)
    ends = {t.stop.get("reason") for t in state.tasks if t.submission == submission.number}
    why = sorted(filter(None, ends)) if unpublished else []
    for reason in why:
        print(f"  a task ended: {reason}", file=sys.stderr)
    # its message names the most frequent reasons
    rang = any(reason.startswith(KEY) for reason in why)
    alarm = rang or _alarm(config, state, names)
    if not alarm:
        for reason, samples in reasons_of(state, names).most_common(SHOWN):
            print(f"  {samples} × {reason}")
    return 1 if unpublished or alarm else 0


def _alarm(config: Config, state: RunState, names: Iterable[str]) -> bool:
    """Whether too many samples of these shards are rejected or failed; if so, says so."""
    why = of_shards(config.data.alarm, state, names)
    if why:
        print(f"  {why}", file=sys.stderr)
    return bool(why)


def _next_commands(paths: RunPaths) -> None:
    print(f"next: python -m recaption.status {paths.root}")
