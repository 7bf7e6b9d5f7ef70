"""Runs whose tasks are killed until they are done, and what must then hold.

Every trial takes a frozen run, starts its tasks, single or twice at once, ends the first attempts
at a named point or a random instant, and lets the last ones finish. Tasks are forked from this
process, which has all imports behind it, and fork their own children in turn; with --launch they
are started by the public command. `python tests/faults/trials.py --help` says how to run more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import captions, files_of, markers, read_run, rows
from processes import children_of, in_folder, in_session, wait_gone
from tars import plain_members, write_tar

from recaption.engine import parent_death
from recaption.pipeline import loop
from recaption.prepare import children
from recaption.run import crash_points
from recaption.run.paths import RunPaths
from recaption.task import attempt as task
from recaption.task import claims

SHARDS, SAMPLES = 3, 10
ATTEMPT_SECONDS = 60.0
POINTS = [
    *(f"{point}:{n}" for point in ("written", "synced", "linked", "published") for n in (1, 2, 3)),
    *(f"in-tar:{n}" for n in (1, 7)),
    "before-marker",
    "marked",
    "left",
    "left:2",
    "journal-written",
    "journal-written:3",
    "journal-synced:2",
    "replacing",
    "replacing:3",
    "swept",
    "described",
    "described:2",
]
WAYS = ("point", "main", "group", "child", "TERM", "USR2")


@dataclass
class Template:
    """A frozen run that nothing has been done for, and what it has to become."""

    run: Path
    wanted: Path  # the undisturbed run
    shards: str
    salt: str
    tasks: int
    samples: int = SAMPLES  # of each shard


@dataclass
class Trial:
    """One trial's plan, and its log."""

    seed: int
    folder: Path
    template: Template
    launch: bool
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.run = self.folder / f"run{self.seed}"
        self.kills = self.rng.randint(1, 3)
        self.copies = 1 if self.launch else self.rng.choice((1, 1, 2))
        self.published: dict[str, tuple[int, bytes]] = {}

    def execute(self) -> None:
        """Raises AssertionError where a promise is broken."""
        if not self.launch:
            copy_frozen(self.template.run, self.run)
        for number in range(self.kills):
            self._attempt(number)
            self._check_published()
        codes = self._finish()
        assert codes == [0] * len(codes), f"the last attempt did not finish: {codes}"
        self._check_published()
        check_run(self.run, self.template)

    def _attempt(self, number: int) -> None:
        way = self.rng.choice(WAYS)
        point = self.rng.choice(POINTS) if way == "point" else ""
        after = self.rng.uniform(0.0, 3.0 if self.launch else 0.8)
        self.log.append(f"attempt {number}: {self.copies}×{way} {point or f'{after:.3f} s'}")
        started = self._start(point)
        deadline = time.monotonic() + (ATTEMPT_SECONDS if way == "point" else after)
        while time.monotonic() < deadline and any(p.alive() for p in started):
            time.sleep(0.003)
        victims = started if self.rng.random() < 0.5 else started[:1]
        for process in victims:
            process.end(way, self.rng)
        codes = [process.wait() for process in started]
        self.log[-1] += f" → {codes}"
        if not self.launch and 1 in codes:
            tail = (self.folder / "tasks.log").read_text()[-3000:]
            raise AssertionError(f"an attempt failed where it should have gone on:\n{tail}")

    def _start(self, point: str = "") -> list[Process]:
        if self.launch:
            return [Launched(self._words(), self.folder, point)]
        numbers = [t for t in range(self.template.tasks) for _ in range(self.copies)]
        return [Forked(self.run, number, self.folder, point) for number in numbers]

    def _finish(self) -> list[int]:
        started = self._start()
        return [process.wait() for process in started]

    def _words(self) -> list[str]:
        return words_of(self.template.shards, self.run, self.template.salt, self.template.tasks)

    def _check_published(self) -> None:
        """A published shard never changes, and is whole from the moment its marker is there."""
        for name, marker in markers(self.run).items() if self.run.exists() else ():
            tar = self.run / name
            seen = tar.stat().st_ino, tar.read_bytes()
            assert hashlib.sha256(seen[1]).hexdigest() == marker["tar"]["sha256"], name
            assert self.published.setdefault(name, seen) == seen, f"{name} has changed"


class Process:
    """A task, or a launch with its tasks, in a session of its own."""

    pid: int

    def alive(self) -> bool:
        raise NotImplementedError

    def wait(self) -> int:
        """The exit code, once every process of the session is gone; 0 where it was killed."""
        raise NotImplementedError

    def end(self, way: str, rng: random.Random) -> None:
        try:
            match way:
                case "main":
                    os.kill(self.pid, signal.SIGKILL)
                case "group":
                    os.killpg(self.pid, signal.SIGKILL)
                case "TERM" | "USR2":
                    os.kill(self.pid, signal.Signals[f"SIG{way}"])
                case "child" if found := children_of(self.pid):
                    os.kill(rng.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            return


class Forked(Process):
    """run_task in a fork of this process, its children forked in turn."""

    def __init__(
        self,
        run: Path,
        number: int,
        folder: Path,
        point: str = "",
        prepare: Callable[[], None] = os.setsid,
    ) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            prepare()
            log = os.open(folder / "tasks.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if point:
                os.environ[crash_points.VARIABLE] = point
            task.run_task(str(run), 0, number)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever a task ends with
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def alive(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait(self) -> int:
        deadline = time.monotonic() + ATTEMPT_SECONDS
        while self.alive():
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                raise AssertionError("an attempt did not end")
            time.sleep(0.005)
        assert self.code is not None
        wait_gone(lambda: in_session(self.pid))
        return self.code


class Launched(Process):
    """The public command; its tasks have sessions of their own and end with it."""

    def __init__(self, words: list[str], folder: Path, point: str) -> None:
        environment = {**os.environ, **({crash_points.VARIABLE: point} if point else {})}
        with open(folder / "launch.log", "ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "recaption.launch", *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self.popen.pid
        self.folder = folder

    def alive(self) -> bool:
        return self.popen.poll() is None

    def end(self, way: str, rng: random.Random) -> None:
        tasks = [p for p in in_folder(self.folder) if p != self.pid and os.getpgid(p) == p]
        if way in ("main", "USR2", "child") and tasks:
            os.kill(rng.choice(tasks), signal.SIGUSR2 if way == "USR2" else signal.SIGKILL)
        else:
            super().end("main" if way == "USR2" else way, rng)

    def wait(self) -> int:
        code = self.popen.wait(ATTEMPT_SECONDS)
        wait_gone(lambda: in_folder(self.folder))
        return code


def check_run(run: Path, template: Template) -> None:
    """The finished run is the undisturbed one's equal, and nothing is left over."""
    paths = RunPaths(run)
    for folder in (paths.temporaries, paths.journals, paths.leases, paths.failures):
        assert not list(folder.iterdir()), f"left over: {list(folder.iterdir())}"
    made = markers(run)
    assert list(made) == list(markers(template.wanted))
    for name, marker in made.items():
        assert sha256(run / name) == marker["tar"]["sha256"], name
        assert sha256(paths.sidecar(name)) == marker["sidecar"]["sha256"], name
        found = rows(run, name)
        assert [r["status"] for r in found] == ["captioned"] * template.samples, name
        said = {r["key"]: r["caption"] for r in found}
        assert said == {k: m["txt"].decode() for k, m in read_run(run)[name].items()}, name
    if template.salt == "":
        wanted = {k: v for k, v in files_of(template.wanted).items() if ".recaption" not in k}
        assert {k: v for k, v in files_of(run).items() if ".recaption" not in k} == wanted
    assert list(captions(run)) == list(captions(template.wanted))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def words_of(shards: str, run: Path, salt: str, tasks: int) -> list[str]:
    return [
        f"data.shards={shards}",
        "engine=fake",
        f"engine.salt={salt}",
        "data.workers=1",
        "data.buffer_mb=16",
        "engine.rate=100",
        "data.tries=9",
        f"slurm.tasks={tasks}",
        "slurm.parallelism=2",
        "task.flush_seconds=0.05",
        "task.lease_seconds=0.5",
        "slurm.signal_delay=1",
        "task.attempts=1000",
        f"output.dir={run}",
    ]


def copy_frozen(source: Path, target: Path) -> None:
    """A run as it is when it has been submitted and no task has started."""
    paths, new = RunPaths(source), RunPaths(target)
    target.mkdir()
    for folder in new.folders():
        folder.mkdir(mode=0o750)
    shutil.copy(paths.run_json, new.run_json)
    shutil.copy(paths.submission(0), new.submission(0))


def templates(
    folder: Path, shard_count: int = SHARDS, samples: int = SAMPLES, numbers: Sequence[int] = (1, 2)
) -> list[Template]:
    shards = f"{folder}/source/{{00000..{shard_count - 1:05d}}}.tar"
    for number in range(shard_count):
        write_tar(folder / f"source/{number:05d}.tar", members(number, samples))
    made = []
    for salt in ("", "random"):
        for tasks in numbers:
            run = folder / f"undisturbed-{salt}{tasks}"
            command = [sys.executable, "-m", "recaption.launch"]
            subprocess.run(
                [*command, *words_of(shards, run, salt, tasks)],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            made.append(Template(run, run, shards, salt, tasks, samples))
    return made


def members(number: int, samples: int) -> list[tuple[str, bytes]]:
    return [(f"s{number}{name}", content) for name, content in plain_members(samples, number)]


def one(seed: int, folder: Path, found: list[Template], *, launch: bool) -> int:
    """Run a trial in a forked child; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    place = folder / f"trial{seed}"
    place.mkdir()
    trial = Trial(seed, place, found[seed % len(found)], launch)
    report: dict[str, Any] = {"seed": seed, "launch": launch, "plan": trial.log}
    try:
        trial.execute()
        shutil.rmtree(place)
        code = 0
    except BaseException:  # noqa: BLE001 - a trial's end is its report
        report["error"] = traceback.format_exc()
    finally:
        (folder / f"{seed}.json").write_text(json.dumps(report))
        os._exit(code)


def warm() -> None:
    """Forked tasks fork their own children, and look around more often than real ones."""
    children.CONTEXT = multiprocessing.get_context("fork")  # type: ignore[assignment]
    children.set_up = lambda spec: os.environ.update({parent_death.TASK: str(os.getpid())})
    claims.SCAN_SECONDS = 0.05
    loop.TICK = 0.05


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """What all commands for trials take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    return parser


def side_by_side(seeds: Iterable[int], start: Callable[[int], int], jobs: int) -> None:
    """Have `start` fork a child per seed, and wait for all; so many run at a time."""
    running: set[int] = set()
    for seed in seeds:
        while len(running) >= jobs:
            running.discard(os.wait()[0])
        running.add(start(seed))
    while running:
        running.discard(os.wait()[0])


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--forked", type=int, default=180, help="trials forked from here")
    parser.add_argument("--launched", type=int, default=20, help="trials through launch")
    parser.add_argument("--folder", type=Path, required=True, help="an empty one to work in")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    found = templates(folder)
    warm()
    started = time.monotonic()
    seeds = range(options.seed, options.seed + options.forked + options.launched)

    def start(seed: int) -> int:
        return one(seed, folder, found, launch=seed - options.seed >= options.forked)

    side_by_side(seeds, start, options.jobs)
    reports = [json.loads((folder / f"{seed}.json").read_text()) for seed in seeds]
    broken = [r for r in reports if "error" in r]
    for report in broken:
        print(f"seed {report['seed']}: {report['plan']}\n{report['error']}")
    lines = [line for r in reports for line in r["plan"]]
    early = [line for line in lines if not line.endswith("[0]") and not line.endswith("[0, 0]")]
    ways = Counter(line.split("×")[1].split()[0] for line in early)
    print(
        f"{len(reports)} trials, {len(lines)} attempts, {len(early)} ended early ({dict(ways)}), "
        f"{len(broken)} broken promises, {time.monotonic() - started:.0f} s"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
