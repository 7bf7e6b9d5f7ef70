"""What two prompts in one pass save, with the tiny model on this machine's CPUs.

    python benchmarks/two_prompts.py [--scenes 1600]

Three runs over the same drawn scenes: prompt=short, prompt=detailed, prompts=[short,detailed]. Prints the
captioning time of each, engine start aside, the last one's share of the two others', and how many of
its captions equal theirs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from drawing import write_shards
from helpers import rows

SHARDS = 8


def run(words: list[str], run: Path) -> float:
    """Seconds of captioning, from the engine's readiness to the end of the pipeline's work."""
    command = [sys.executable, "-m", "recaption.launch", *words, f"output.dir={run}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (log,) = (run / ".recaption/tasks").iterdir()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    beats = [event for event in events if event["event"] == "beat"]
    return float(beats[-1]["engine_seconds"])


def captions(run: Path, column: str) -> dict[str, str]:
    names = [f"{number:05d}" for number in range(SHARDS)]
    return {row["key"]: row[column] for name in names for row in rows(run, name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=1600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder / "in", SHARDS, options.scenes // SHARDS, plain=True)
        given = [f"data.shards={folder}/in/*.tar", "model=tiny"]
        seconds = {
            prompt: run([*given, f"prompt={prompt}"], folder / prompt)
            for prompt in ("short", "detailed")
        }
        both = run([*given, "prompts=[short,detailed]"], folder / "both")
        same = total = 0
        for prompt in seconds:
            alone = captions(folder / prompt, "caption")
            together = captions(folder / "both", f"caption_{prompt}")
            same += sum(alone[key] == together[key] for key in alone)
            total += len(alone)
    print(f"seconds: {', '.join(f'{k} {v:.1f}' for k, v in seconds.items())}, both {both:.1f}")
    print(f"both / sum of the two    {both / sum(seconds.values()):.3f}")
    print(f"equal captions           {same} of {total} ({same / total:.2%})")


if __name__ == "__main__":
    main()
