"""Checks that two machines see the same folder: each waits for a file of the other's.

HERE_FIRST is written before the job starts, NODE by the job, HERE_SECOND once NODE is seen here, and
REPORT at the end. The time until the job sees HERE_SECOND, by its own clock, is that of a round trip.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recaption.config.records import typed_config
from recaption.doctor.check import Check
from recaption.doctor.node import check_node
from recaption.run import publish, shared

HERE_FIRST, NODE, HERE_SECOND, REPORT = "here-1", "node-1", "here-2", "report.json"
SCONTROL = "scontrol.txt"
POLL = 0.1


@dataclass(frozen=True)
class Report:
    """What a job found; seconds are None for a file that was never seen."""

    node: str
    seen_after: float | None  # until the job saw what had been written before it started
    there_and_back: float | None
    exclusive: bool  # a link to a name that the other machine had taken was refused
    checks: list[Check]


def write(folder: Path, name: str, content: Any = None) -> bool:
    """Create one of the files; False if it exists."""
    host = socket.gethostname()
    return publish.create(
        folder / name, publish.to_json(content), folder / f"{name}@{host}-{os.getpid()}"
    )


def wait_for(path: Path, seconds: float, go_on: Callable[[], bool] = lambda: True) -> float | None:
    """Seconds until a file could be read; None if that took too long, or `go_on` said no."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) <= seconds:
        try:
            path.read_bytes()
            return waited
        except OSError:
            if not go_on():
                return None
        time.sleep(POLL)
    return None


def scontrol_line(folder: Path) -> str:
    """A shell line for the batch script that records whether it can reach the controller."""
    target = shlex.quote(str(folder / SCONTROL))
    return f'scontrol -o show job "$SLURM_JOB_ID" >{target} 2>&1 || true'


def visit(folder: str, config: dict[str, Any]) -> None:
    """The job's part, on its node; waits for each file for at most a lease's life."""
    place, settings = Path(folder), typed_config(config)
    seconds = settings.task.lease_seconds
    seen_after = wait_for(place / HERE_FIRST, seconds)
    exclusive = seen_after is not None and not write(place, HERE_FIRST)
    write(place, NODE)
    there_and_back = wait_for(place / HERE_SECOND, seconds)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    checks = check_node(settings)
    write(place, REPORT, asdict(Report(node, seen_after, there_and_back, exclusive, checks)))


def read_report(folder: Path) -> Report:
    record = json.loads(shared.content(folder / REPORT))
    return Report(**{**record, "checks": [Check(**check) for check in record["checks"]]})
