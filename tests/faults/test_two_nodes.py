"""Two nodes of a real network file system at one run; `make faults` does 100 such trials."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from brought_up import Unavailable
from volume import Volume

from recaption.run.paths import RunPaths
from recaption.task.leases import Leases

TRIALS = 5
READS = 60


@pytest.fixture(scope="module")
def volume() -> Iterator[Volume]:
    try:
        mounted = Volume.up(2)
    except Unavailable as error:
        pytest.skip(str(error))
    with mounted:
        yield mounted


@pytest.mark.slow
@pytest.mark.faults
def test_no_task_ends_because_another_is_killed(volume: Volume) -> None:
    script = Path(__file__).with_name("two_nodes.py")
    seed = os.environ.get("RECAPTION_FAULT_SEED", "0")
    result = subprocess.run(
        [sys.executable, str(script), "--trials", str(TRIALS), "--seed", seed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-4000:]
    said = re.search(r"(\d+) trials on two clients, (\d+) of (\d+) kills", result.stdout)
    assert said, result.stdout
    trials, early, kills = map(int, said.groups())
    assert trials == TRIALS
    assert early > kills // 2, "kills that come too late prove nothing"


@pytest.mark.faults
def test_a_lease_that_another_node_replaces(volume: Volume) -> None:
    """One client writes it again and again, another reads it: the lease, or none, but no error."""
    near, far = (
        Leases(RunPaths(volume.directory / f"node{n}"), f"0-{n}-0-x", 60.0) for n in (1, 2)
    )
    for folder in near.paths.folders():
        folder.mkdir()
    pid = os.fork()
    if not pid:
        while True:
            near.write("0.tar", begun=True)
            time.sleep(0.05)
    found = []
    try:
        for _ in range(READS):
            time.sleep(0.03)
            found.append(far.read("0.tar"))
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert {lease.attempt for lease in found if lease} == {"0-1-0-x"}
