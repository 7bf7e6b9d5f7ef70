"""What a node with eight engines asks of the main process and of the workers, without a GPU.

    python benchmarks/fake_node.py [--engines 8] [--rates 60] [--input-mb 3.7] [--seconds 40]

Fake engines at a fixed rate each, on pictures of `--size` whose prepared inputs have `--input-mb` million
bytes, as those of Qwen2.5-VL. Prints the share of the engines' sum that the pipeline reached, from tar
to published tar, and CPU milliseconds per image. `--engines 1 --rates 20 --in-flight 32` suits two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SHARDS = 16
ROLES = {"task": "main process", "worker": "workers", "engine": "engines", "publisher": "publisher"}


def measure(options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """The pipeline's figures with fake engines at `rate` images/s each."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        images = int(options.engines * rate * options.seconds)
        command = [sys.executable, "-m", "recaption.bench", "--parts", "pipeline"]
        command += ["--size", options.size, "--images", str(images), "--shards", str(SHARDS)]
        command += ["--json", str(out), "engine=fake", f"engine.rate={rate}"]
        command += [f"engine.replicas={options.engines}", f"engine.input_mb={options.input_mb}"]
        command += [f"engine.max_num_seqs={options.in_flight}"]
        command += [f"data.workers={options.workers}"] if options.workers else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        figures: dict[str, Any] = json.loads(out.read_text())["pipeline"]
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--engines", type=int, default=8)
    add("--rates", default="60", help="images/s of each engine; several are measured in turn")
    add("--size", default="640x480")
    add("--input-mb", type=float, default=3.7)
    add("--seconds", type=float, default=40)
    add("--in-flight", type=int, default=512, help="samples at a time in each engine")
    add("--workers", type=int, help="preparation processes; default: what the CPUs allow")
    options = parser.parse_args()
    for rate in map(float, options.rates.split(",")):
        figures = measure(options, rate)
        details, total = figures["details"], options.engines * rate
        milliseconds = details["cpu_ms_per_image"]
        loop = milliseconds["task"] * figures["rate"] / 1000
        print(
            f"{options.engines} engines of {rate:g} images/s, {details['workers']} workers, "
            f"{figures['images']} images: {figures['rate']:.1f} images/s, "
            f"{figures['rate'] / total:.3f} of the engines' sum; "
            f"{figures['middle'] / total:.3f} in the middle half"
        )
        print(
            "CPU ms per image: "
            + ", ".join(f"{name} {milliseconds[role]:.2f}" for role, name in ROLES.items())
            + f" (main process: {loop:.2f} of a core); peak {details['peak_memory_mb']} MB; "
            f"starved {details['starved']:.3f} {details['starved_seconds']}"
        )


if __name__ == "__main__":
    main()
