"""The benchmark's watch: what processes use, and how they grow."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time

import pytest

from recaption.bench.memory_watch import Usage, Watch

SECONDS, EVERY = 400, 0.5
BUSY = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@pytest.mark.parametrize("leak", [0, 1_000, 1_000_000], ids=lambda leak: f"{leak}/s")
def test_a_leak_is_found_under_what_comes_and_goes(leak: int) -> None:
    rng = random.Random(leak)
    watch = Watch(dict)
    watch.names = {1: "engine", 2: "engine"}
    watch.seen = {1: Usage(0), 2: Usage(0)}
    began = time.monotonic() - SECONDS
    for n in range(int(SECONDS / EVERY)):
        passed = n * EVERY
        warming = 500_000_000 * min(1.0, passed / 100)
        in_flight = rng.choice([0, 1, 2, 3]) * 50_000_000
        memory = int(warming + leak * passed + in_flight)
        watch.seen[1].resident.append((began + passed, memory))
        watch.seen[2].resident.append((began + passed, 10_000_000))
    assert watch.growth(began) == pytest.approx({"engine": leak}, rel=0.01, abs=1)


def test_too_few_samples_say_nothing() -> None:
    watch = Watch(dict)
    now = time.monotonic()
    watch.seen = {1: Usage(0, 0.0, [(now - 1 + n / 10, n) for n in range(10)])}
    assert watch.growth(now - 1) == {}


def test_processes_are_watched_from_a_process_that_is_not_counted() -> None:
    """No thread of this one takes part, whose loop is what a benchmark measures."""
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        threads = threading.active_count()
        with Watch(lambda: {os.getpid(): "task", child.pid: "busy"}) as watch:
            watching = watch.process.pid
            assert threading.active_count() == threads
            time.sleep(2.0)
        child.kill()
    assert watching not in watch.seen
    assert {os.getpid(), child.pid} <= set(watch.seen)
    assert 0.2 < watch.cpu["busy"] < 3.0
    assert watch.cpu["task"] < 1.0
    assert watch.peak > 10e6
    assert not watch.process.is_alive()
