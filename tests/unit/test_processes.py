"""The benchmark's measure of how a process grows."""

from __future__ import annotations

import random
import time

import pytest

from recaption.bench.usage import Watch

SECONDS, EVERY = 400, 0.5


@pytest.mark.parametrize("leak", [0, 1_000, 1_000_000], ids=lambda leak: f"{leak}/s")
def test_a_leak_is_found_under_what_comes_and_goes(leak: int) -> None:
    rng = random.Random(leak)
    watch = Watch(dict)
    began = time.monotonic() - SECONDS
    for n in range(int(SECONDS / EVERY)):
        passed = n * EVERY
        warming = 500_000_000 * min(1.0, passed / 100)
        in_flight = rng.choice([0, 1, 2, 3]) * 50_000_000
        memory = int(warming + leak * passed + in_flight)
        watch.samples["engine", 1].append((began + passed, memory))
        watch.samples["engine", 2].append((began + passed, 10_000_000))
    assert watch.growth(began) == pytest.approx({"engine": leak}, rel=0.01, abs=1)


def test_too_few_samples_say_nothing() -> None:
    watch = Watch(dict)
    now = time.monotonic()
    watch.samples["task", 1] = [(now - 1 + n / 10, n) for n in range(10)]
    assert watch.growth(now - 1) == {}
