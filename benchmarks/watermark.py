"""What watermark scoring costs the pipeline: a fake engine of a fixed rate, without it and with it.

    python benchmarks/watermark.py [MODEL.onnx] [--rate 40] [--images 1600] [--rounds 3]

Prints images/s of both, their ratio, and the CPU time of one score. The rate must be one that the
preparation workers can serve with CPUs to spare; without a model, the tests' own is trained.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from drawing import write_shards
from PIL import Image
from watermarking import train

from recaption.config.onnx import Scorer
from recaption.prepare.score import Model


def rate_of(words: list[str], run: Path) -> float:
    """Images per second of one launch, between its first report and its last."""
    command = [sys.executable, "-m", "recaption.launch", *words, f"output.dir={run}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (log,) = (run / ".recaption/tasks").iterdir()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    beats = [e for e in events if e["event"] == "beat" and e["settled"]]
    first, last = beats[0], beats[-1]
    rate: float = (last["settled"] - first["settled"]) / (last["seconds"] - first["seconds"])
    return rate


def cpu_of_a_score(path: Path, picture: bytes) -> float:
    """Milliseconds of CPU for one picture, in a batch of four, resizing included."""
    model = Model("watermark", Scorer(path=str(path)), 1)
    rgb = Image.open(io.BytesIO(picture)).convert("RGB")
    rounds = 50
    model.scores([model.tensor(rgb)] * 4)
    begin = time.process_time()
    for _ in range(rounds):
        model.scores([model.tensor(rgb) for _ in range(4)])
    return (time.process_time() - begin) / rounds / 4 * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rate", type=float, default=40.0, help="of the engine, images/s")
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = args.model or train(folder / "watermark.onnx")
        samples = write_shards(folder / "in", 4, args.images // 4, side=512, plain=True)
        picture = next(iter(samples["00000.tar"])).picture
        assert picture is not None
        cost = cpu_of_a_score(model, picture.content)
        words = [f"data.shards={folder}/in/*.tar", "engine=fake", f"engine.rate={args.rate}"]
        scoring = ["watermark=onnx", f"watermark.path={model}"]
        rates: dict[str, list[float]] = {"without": [], "with": []}
        for n in range(args.rounds):  # in turn, since other loads come and go
            for label, more in (("without", []), ("with", scoring)):
                rates[label].append(rate_of([*words, *more], folder / f"{label}{n}"))
                print(f"{label} scoring: {rates[label][-1]:.2f} images/s")
    without, scored = (statistics.median(found) for found in rates.values())
    load, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(
        f"engine {args.rate:g}/s, {cpus} CPUs, load {load:.1f}: {without:.2f} images/s without, "
        f"{scored:.2f} with scoring, cost {100 * (1 - scored / without):.1f} %; "
        f"{cost:.1f} ms of CPU per score"
    )


if __name__ == "__main__":
    main()
