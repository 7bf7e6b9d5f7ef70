"""60 runs whose tasks are killed again and again; `make faults` does 1,000."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TRIALS = Path(__file__).with_name("trials.py")
FORKED, LAUNCHED = 50, 10


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    counts = ["--forked", str(FORKED), "--launched", str(LAUNCHED)]
    seed = ["--seed", os.environ.get("RECAPTION_FAULT_SEED", "0")]
    result = subprocess.run(
        [sys.executable, str(TRIALS), *counts, *seed, "--folder", str(tmp_path / "trials")],
        capture_output=True,
        text=True,
        check=False,
    )
    print(result.stdout[-4000:])
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-4000:]
    said = re.search(r"(\d+) trials, (\d+) attempts, (\d+) ended early", result.stdout)
    assert said
    trials, _, early = map(int, said.groups())
    assert trials == FORKED + LAUNCHED
    assert early > trials * 2 // 3, "kills that come too late prove nothing"
