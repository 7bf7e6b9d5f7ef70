"""How long it takes to find the one picture that killed an engine with many in flight.

    python benchmarks/after_death.py [--in-flight 576] [--seconds 1.2]

A fake engine that takes `--seconds` per answer, however many are in flight, and dies of the last one;
prints its deaths, the time of the whole run, and that of the same run without the picture's poison.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from recaption.bench.shards import make_shards


def run(folder: Path, name: str, poison: dict[str, str], in_flight: int) -> tuple[float, int]:
    """Seconds and deaths of a run."""
    presets = folder / name / "engine"
    presets.mkdir(parents=True)
    settings = {"kind": "fake", "max_num_seqs": in_flight, "waiting": 0, "poison": poison}
    (presets / "ill.yaml").write_text(json.dumps(settings))
    words = [f"data.shards={folder}/shards/*.tar", "engine=ill", f"output.dir={folder}/{name}/run"]
    command = [sys.executable, "-m", "recaption.launch", f"--config-dir={folder}/{name}", *words]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    logs = (folder / name / "run/.recaption/tasks").glob("*.jsonl")
    events = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return seconds, max(e["restarts"] for e in events if e["event"] == "beat")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, default=576)
    parser.add_argument("--seconds", type=float, default=1.2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_shards(folder / "shards", shards=1, samples=options.in_flight, size=(64, 48))
        wait = {"*": f"wait {options.seconds}"}
        well, _ = run(folder, "well", wait, options.in_flight)
        (rows,) = (folder / "well/run/.recaption/shards").glob("*.parquet")
        captions = pq.read_table(rows, columns=["caption"])["caption"].to_pylist()
        poison = {captions[-1]: "crash"}
        ill, deaths = run(folder, "ill", wait | poison, options.in_flight)
    print(
        f"{options.in_flight} in flight, {options.seconds:g} s per answer: {deaths} deaths, "
        f"{ill:.1f} s with the picture that kills, {well:.1f} s without, {ill - well:.1f} s more"
    )


if __name__ == "__main__":
    main()
