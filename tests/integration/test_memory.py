"""Memory does not grow with the number of shards."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from drawing import draw_samples, write_shard
from helpers import Process, markers, started

SAMPLES = 40


def peaks(process: Process) -> dict[int, int]:
    """Peak resident memory (VmHWM, KiB) of every process of a launch that is there now."""
    found = {}
    for pid, _ in process.left():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
        if lines:
            found[pid] = int(lines[0][1])
    return found


def peak_of_run(folder: Path, shards: int) -> int:
    """Sum over a run's processes of each one's own peak, in KiB.

    The kernel keeps the peaks, so that sampling misses nothing but a process's last moment.
    """
    folder.mkdir()
    (folder / "in").mkdir()
    samples = draw_samples(SAMPLES, 7, side=128, plain=True)
    first = write_shard(folder / "in/00000.tar", samples)
    for i in range(1, shards):
        (folder / f"in/{i:05d}.tar").write_bytes(first.read_bytes())
    highest: dict[int, int] = {}
    words = ("data.shards=in/*.tar", "engine=fake", "output.dir=run", "data.workers=2")
    with started(*words, cwd=folder) as process:
        while process.popen.poll() is None:
            highest |= peaks(process)
            time.sleep(0.1)
        assert process.finish(60).returncode == 0
    assert len(markers(folder / "run")) == shards
    return sum(highest.values())


@pytest.mark.slow
def test_the_peak_over_64_shards_is_that_over_8(tmp_path: Path) -> None:
    few, many = peak_of_run(tmp_path / "few", 8), peak_of_run(tmp_path / "many", 64)
    print(f"peak over 8 shards {few / 1024:.0f} MiB, over 64 {many / 1024:.0f} MiB")
    assert few > 100 * 1024
    assert many <= 1.1 * few
