"""Runs on a throwaway cluster: launching them, looking at them, and comparing them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import captions, markers, task_logs
from slurm.lab import Lab

SETTINGS = (
    "slurm=cluster",
    "slurm.gpus=1",
    "slurm.cpus=2",
    "slurm.mem=1G",
    "slurm.time=20",
    "task.lease_seconds=4",
    "data.workers=1",
    "engine.max_num_seqs=8",
    "engine.waiting=4",
)

Completed = subprocess.CompletedProcess[str]


def command(
    lab: Lab, name: str, *words: str, cwd: Path, timeout: float = 120, **env: str
) -> Completed:
    """`python -m recaption.NAME WORDS` with the cluster's environment."""
    return subprocess.run(
        [sys.executable, "-m", f"recaption.{name}", *words],
        env={**lab.env, **env},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass
class Attempt:
    """One attempt's log."""

    submission: int
    task: int
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def started(self) -> float:
        return float(self.events[0]["time"]) if self.events else 0.0

    @property
    def last(self) -> float:
        return float(self.events[-1]["time"]) if self.events else 0.0

    @property
    def captioned(self) -> int:
        return max((e["captioned"] for e in self.events if e["event"] == "beat"), default=0)

    @property
    def published(self) -> list[str]:
        return [e["shard"] for e in self.events if e["event"] == "published" and e["won"]]

    @property
    def stop(self) -> str:
        """Why it stopped; '' where it was killed or still works."""
        return next((str(e["why"]) for e in self.events if e["event"] == "stop"), "")

    @property
    def restart(self) -> int:
        return int(self.events[0].get("restart_count", 0))


@dataclass
class Run:
    """A run directory and the jobs of its latest submission."""

    lab: Lab
    folder: Path
    arrays: list[str]

    @classmethod
    def launch(cls, lab: Lab, folder: Path, *words: str, engine: str = "fake") -> Run:
        """Submit and return; AssertionError unless the command says that it did."""
        given = {word.split("=")[0] for word in words}
        words = (*(w for w in SETTINGS if w.split("=")[0] not in given), *words)
        words = (f"engine={engine}", f"output.dir={folder}", *words)
        done = command(lab, "launch", *words, cwd=folder.parent)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return cls(lab, folder, job_ids(done))

    @property
    def array(self) -> str:
        (array,) = self.arrays
        return array

    def task(self, number: int) -> str:
        return f"{self.array}_{number}"

    def attempts(self, task: int | None = None, submission: int | None = None) -> list[Attempt]:
        """Attempts in the order of their starts."""
        found = []
        for path in (self.folder / ".recaption/tasks").glob("*.jsonl"):
            part, _, _ = path.name.partition("@")
            made = Attempt(*(int(n) for n in part.split("-")))
            lines = path.read_text().splitlines(keepends=True)
            made.events = [json.loads(line) for line in lines if line.endswith("\n")]
            wanted = task in (None, made.task) and submission in (None, made.submission)
            if wanted and made.events:
                found.append(made)
        return sorted(found, key=lambda a: a.started)

    def published(self) -> int:
        return len(list((self.folder / ".recaption/shards").glob("*.json")))

    def captioned(self) -> int:
        """Captions that all attempts say they have made."""
        return sum(a.captioned for a in self.attempts())

    def wait(self, timeout: float) -> None:
        """Until none of its jobs is in the queue."""
        try:
            self.lab.wait_until(lambda: not self.queued(), timeout, f"{self.arrays} to end")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.said()}") from None

    def queued(self) -> list[list[str]]:
        return self.lab.squeue("-j", ",".join(self.arrays)) if self.known() else []

    def known(self) -> bool:
        """Whether the controller still remembers the jobs."""
        return any(self.lab.state(array) for array in self.arrays)

    def pids(self, task: int | None = None, text: str = "") -> list[int]:
        """Processes of its jobs, or of one task."""
        jobs = self.arrays if task is None else [self.task(task)]
        return [pid for job in jobs for pid in self.lab.job_pids(job, text)]

    def python(self, task: int) -> int:
        """The task's own process: the one that its log names."""
        return int(self.attempts(task)[-1].events[0]["pid"])

    def said(self) -> str:
        states = [(a.submission, a.task, a.restart, a.captioned, a.stop) for a in self.attempts()]
        return f"attempts: {states}\n{task_logs(self.folder)}"


def job_ids(done: Completed) -> list[str]:
    """The arrays that a launch has printed."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("job ids: ")]
    return [job for line in lines for job in line.removeprefix("job ids: ").split()]


def generations(record: Path) -> Counter[str]:
    """How often the fake engine has made each caption (engine.record)."""
    return Counter(record.read_text().splitlines())


def assert_whole(run: Path, source: Iterable[str], wanted: dict[str, str]) -> None:
    """Every shard is there with its marker, and every key has the caption that it should have."""
    names = sorted(source)
    assert sorted(markers(run)) == names
    assert sorted(path.name for path in run.glob("*.tar")) == names
    assert captions(run) == wanted
    assert (run / "sizes.json").exists()
    for folder in ("journal", "leases", "tmp", "failed"):
        assert list((run / ".recaption" / folder).iterdir()) == [], folder
