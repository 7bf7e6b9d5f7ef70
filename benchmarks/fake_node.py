"""What a node with eight engines asks of the parent process, without a GPU.

    python benchmarks/fake_node.py [--engines 8] [--rates 50,300] [--seconds 20]

Fake engines at a fixed service rate each, on pictures so small that preparing them is cheap: the
parent's CPU time per image is what a node with real engines pays for routing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def measure(engines: int, rate: float, seconds: float) -> dict[str, Any]:
    """The pipeline's figures with `engines` fake engines at `rate` images/s each."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        images = int(engines * rate * seconds)
        command = [
            sys.executable,
            "-m",
            "recaption.bench",
            "--parts",
            "pipeline",
            "--size",
            "64x48",
        ]
        command += ["--images", str(images), "--shards", "16", "--json", str(out)]
        command += ["engine=fake", f"engine.rate={rate}", f"engine.replicas={engines}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        figures: dict[str, Any] = json.loads(out.read_text())
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--rates", default="50,300")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    print("engines  rate each  images/s  of the engines' sum  parent ms/image  peak MB")
    for rate in map(float, options.rates.split(",")):
        pipeline = measure(options.engines, rate, options.seconds)["pipeline"]
        share = pipeline["rate"] / (options.engines * rate)
        details = pipeline["details"]
        print(
            f"{options.engines:7} {rate:10.0f} {pipeline['rate']:9.1f} {share:20.3f} "
            f"{details['cpu_ms_per_image']['task']:16.3f} {details['peak_memory_mb']:8}"
        )


if __name__ == "__main__":
    main()
