"""The speed of the device itself: a large matrix product and a large copy, best of fifty each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

SIDE = 8192  # rows and columns of the bf16 matrices
COPIED = 4 << 30  # bytes, read once and written once
TIMES = 50


def measured_rates() -> tuple[float, float] | None:
    """FLOP/s of the product and bytes/s of the copy on the first GPU; None if there is none.

    They are measured in a separate process, so that the device is free again.
    """
    ended = subprocess.run(
        [sys.executable, "-m", "recaption.bench.rates"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    lines = ended.stdout.strip().splitlines()
    if ended.returncode or not lines:
        return None
    found = json.loads(lines[-1])
    return None if found is None else (found["flops"], found["bandwidth"])


def _measure() -> dict[str, float] | None:
    import torch

    if not torch.cuda.is_available():
        return None
    left, right = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    product = _fastest(lambda: torch.mm(left, right, out=out))
    source = torch.ones(COPIED, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = _fastest(lambda: target.copy_(source))
    return {"flops": 2 * SIDE**3 / product, "bandwidth": 2 * COPIED / copy}


def _fastest(action: Callable[[], object]) -> float:
    """Seconds of the fastest of TIMES runs, by the device's own clock, after three to warm up."""
    import torch

    for _ in range(3):
        action()
    best = float("inf")
    for _ in range(TIMES):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        action()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1000)
    return best


if __name__ == "__main__":
    print(json.dumps(_measure()))
