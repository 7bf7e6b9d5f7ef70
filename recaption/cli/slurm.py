"""Asks Slurm about jobs. The run directory is asked first, and Slurm only for what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS = 30  # in which Slurm's commands have to answer
ENDING = set(
    "BOOT_FAIL CANCELLED COMPLETED COMPLETING DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED "
    "TIMEOUT".split()
)
# A user's own variables for these commands would filter their output or make them ask questions.
WISHES = ("SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_")
SHORTEST, LONGEST = 1.0, 30.0  # seconds between two queries


@dataclass(frozen=True)
class Job:
    """One array element or job, as squeue shows it."""

    state: str  # PENDING, RUNNING, …
    reason: str  # why it is pending: Priority, JobHeldAdmin, …
    node: str

    @property
    def held(self) -> bool:
        """JobHeldAdmin, JobHeldUser, or held by Slurm after failed launches."""
        return self.state == "PENDING" and "held" in self.reason.lower()

    @property
    def ending(self) -> bool:
        """Whether it is ending: it runs nothing any more, or is about to stop."""
        return self.state in ENDING


class Queue:
    """Asks, at growing intervals, whether any of these jobs is still in the queue.

    While the controller does not answer, they are taken to be there. Prints a line on stderr when
    Slurm holds some of them.
    """

    def __init__(self, arrays: Sequence[str]) -> None:
        self.arrays = arrays
        self.held: list[str] = []
        self.started = self.next_look = time.monotonic()
        self.known = True

    def __call__(self) -> bool:
        now = time.monotonic()
        if self.known and now >= self.next_look:
            found = jobs(self.arrays)
            self.known = found is None or bool(found)
            self._say_held(sorted(job for job, state in (found or {}).items() if state.held))
            age = time.monotonic() - self.started
            self.next_look = time.monotonic() + min(LONGEST, max(SHORTEST, age / 20))
        return self.known

    def _say_held(self, held: list[str]) -> None:
        if held and held != self.held:
            more = f" and {len(held) - 1} more" if len(held) > 1 else ""
            print(
                f"held by Slurm: {held[0]}{more} (see `squeue`, `scontrol release`)",
                file=sys.stderr,
            )
        self.held = held


def settings() -> dict[str, str]:
    """The cluster's configuration from `scontrol show config`; empty if that fails."""
    shown = _output(["scontrol", "show", "config"])
    if shown is None or shown[0]:
        return {}
    pairs = (line.partition("=") for line in shown[1].splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def jobs(arrays: Sequence[str]) -> dict[str, Job] | None:
    """Jobs in the queue by id (`A_I` for elements of arrays); None if squeue does not answer."""
    if not arrays:
        return {}
    command = ["squeue", "--noheader", "--array", "--format=%i|%T|%N|%r"]
    shown = _output([*command, "--jobs", ",".join(arrays)])
    if shown is None:
        return None
    code, out, err = shown
    if code:
        return {} if "Invalid job id" in err else None
    found = {}
    for line in out.splitlines():
        fields = line.strip().split("|", 3)
        if len(fields) == 4:
            found[fields[0]] = Job(fields[1], fields[3], fields[2])
    return found


def cancel(arrays: Sequence[str]) -> str:
    """Cancel jobs: their tasks get TERM, flush, and are not requeued. Returns why it failed, or ''."""
    shown = _output(["scancel", *arrays])
    if shown is None:
        return "it is not there, or does not answer"
    code, _, err = shown
    return (err.strip() or f"exit code {code}") if code else ""


def ended(ids: Sequence[str]) -> dict[str, str]:
    """How jobs that left the queue ended, such as OUT_OF_MEMORY, for those in Slurm's accounting."""
    if not ids:
        return {}
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
    shown = _output([*command, "--jobs", ",".join(ids)])
    if shown is None or shown[0]:
        return {}
    pairs = (line.split("|") for line in shown[1].splitlines())
    return {pair[0]: pair[1].split(" ")[0] for pair in pairs if len(pair) == 2}


def environment() -> dict[str, str]:
    """The environment for squeue, sacct and scancel: the site's variables, not the user's options."""
    return {name: value for name, value in os.environ.items() if not name.startswith(WISHES)}


def _output(command: list[str]) -> tuple[int, str, str] | None:
    """Exit code, stdout and stderr; None if the program is missing or does not answer."""
    try:
        shown = subprocess.run(
            command,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return shown.returncode, shown.stdout, shown.stderr
