"""Two tasks on two nodes of a network file system, killed in turn, and what must then hold.

Each node has a client of its own, so that what one replaces or removes is a stale file handle to
the other for a moment. A task that nobody killed must not end, and the tars are an undisturbed
run's. `python tests/faults/two_nodes.py --help` says how to run more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from brought_up import Unavailable
from trials import (
    Forked,
    Template,
    check_run,
    copy_frozen,
    parser_of,
    side_by_side,
    templates,
    warm,
)
from volume import Volume

NODES, SHARDS, SAMPLES = 2, 8, 4
KILLS = 4
LONGEST = 0.6  # seconds between two kills
WAYS = ("main", "group", "TERM", "USR2")
KILLED = (0, -9, 75)  # how a task ends that was killed or told to stop


class Trial:
    """One run, whose two tasks are killed in turn; its log."""

    def __init__(self, seed: int, folder: Path, template: Template, volume: Volume) -> None:
        self.folder, self.template, self.volume = folder, template, volume
        self.rng = random.Random(seed)
        self.run = folder / "run"
        self.log: list[str] = []
        self.early = 0

    def execute(self) -> None:
        """Raises AssertionError where a promise is broken."""
        copy_frozen(self.template.run, self.run)
        tasks = [self._start(node) for node in range(NODES)]
        for number in range(KILLS):
            victim = number % NODES
            time.sleep(self.rng.uniform(0.05, LONGEST))
            way = self.rng.choice(WAYS)
            self.early += tasks[victim].alive()
            tasks[victim].end(way, self.rng)
            code = tasks[victim].wait()
            self.log.append(f"node {victim + 1} {way} → {code}")
            self._check(code in KILLED)
            tasks[victim] = self._start(victim)
        codes = [task.wait() for task in tasks]
        self.log.append(f"end → {codes}")
        self._check(codes == [0] * NODES)
        check_run(self.run, self.template)

    def _start(self, node: int) -> Forked:
        def enter() -> None:
            os.setsid()
            self.volume.become(node + 1)

        return Forked(self.run, node, self.folder, prepare=enter)

    def _check(self, fine: bool) -> None:
        if not fine:
            tail = (self.folder / "tasks.log").read_text()[-3000:]
            raise AssertionError(f"a task ended that should have gone on:\n{tail}")


def one(seed: int, folder: Path, found: list[Template], volume: Volume) -> int:
    """Run a trial in a forked child; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code, place = 1, folder / f"trial{seed}"
    place.mkdir()
    trial = Trial(seed, place, found[seed % len(found)], volume)
    error = ""
    try:
        trial.execute()
        shutil.rmtree(place)
        code = 0
    except BaseException:  # noqa: BLE001 - a trial's end is its report
        error = traceback.format_exc()
    finally:
        report = {"seed": seed, "plan": trial.log, "early": trial.early, "error": error}
        (volume.directory / f"{seed}.json").write_text(json.dumps(report))
        os._exit(code)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    try:
        volume = Volume.up(NODES)
    except Unavailable as error:
        print(f"skipped: {error}")
        return 0
    with volume:
        return trials(volume, options.trials, options.seed, options.jobs)


def trials(volume: Volume, count: int, seed: int, jobs: int) -> int:
    started = time.monotonic()
    found = templates(volume.shared, SHARDS, SAMPLES, [NODES])
    warm()
    seeds = range(seed, seed + count)
    side_by_side(seeds, lambda number: one(number, volume.shared, found, volume), jobs)
    reports = [json.loads((volume.directory / f"{number}.json").read_text()) for number in seeds]
    broken = [report for report in reports if report["error"]]
    for report in broken:
        print(f"seed {report['seed']}: {report['plan']}\n{report['error']}")
    early = sum(report["early"] for report in reports)
    print(
        f"{count} trials on two clients, {early} of {count * KILLS} kills while at work, "
        f"{len(broken)} broken promises, {time.monotonic() - started:.0f} s"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
