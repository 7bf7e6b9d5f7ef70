"""What planning and starting cost with a hundred thousand shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from drawing import draw_samples, write_shard
from slurm.lab import Lab
from slurm.runs import SETTINGS, Run

SHARDS = 100_000
GIB = 1 << 30
# Runs a command and writes its CPU seconds and most bytes of memory. A small process in between: what
# a child has at most is counted from the size of the one that it was forked from.
MEASURED = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
figures = [used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]
json.dump(figures, open(sys.argv[1], "w"))
sys.exit(code)
"""


def test_a_hundred_thousand_shards(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for part in range(SHARDS // 25_000):  # a file can have 65,000 names
        first = folder / f"{part * 25_000:06d}.tar"
        write_shard(first, draw_samples(2, part, side=96, plain=True))
        for number in range(part * 25_000 + 1, (part + 1) * 25_000):
            os.link(first, folder / f"{number:06d}.tar")
    words = [f"data.shards={folder}/{{000000..099999}}.tar", "engine=fake", "slurm.tasks=64"]
    words += [f"output.dir={tmp_path}/run", "slurm.parallelism=1", *SETTINGS]
    before = time.monotonic()
    command = [sys.executable, "-m", "recaption.launch", *words]
    launch = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path / "usage.json", *command],
        env=lab.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - before
    said = launch.stdout
    assert launch.returncode == 0, said
    arrays = [line.split()[-1] for line in said.splitlines() if line.startswith("job ids: ")]
    run = Run(lab, tmp_path / "run", arrays)
    cpu_seconds, memory = json.loads((tmp_path / "usage.json").read_text())
    print(f"launch: {seconds:.1f} s, {cpu_seconds:.1f} s of CPU, {memory >> 20} MB")
    assert seconds <= 10 or (crowded() and cpu_seconds <= 5), (seconds, cpu_seconds)
    assert memory <= GIB

    journals = run.folder / ".recaption/journal"
    lab.wait_until(lambda: any(journals.iterdir()) or run.published(), 30, "work to start")
    now, process = time.time(), psutil.Process(run.attempts()[0].events[0]["pid"])
    seconds, used = now - process.create_time(), process.cpu_times()
    lab.scancel(run.array)
    cpu_seconds = used.user + used.system
    print(f"first work of a task: {seconds:.1f} s after its start, {cpu_seconds:.1f} s of CPU")
    assert seconds <= 3 or (crowded() and cpu_seconds <= 2), (seconds, cpu_seconds)


def crowded() -> bool:
    """Whether other work takes so much of this machine that only CPU seconds tell something."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)
