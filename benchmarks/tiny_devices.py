"""Whether the tiny model says the same on a GPU as on a CPU, with one engine and with several.

    python benchmarks/tiny_devices.py draw SHARDS                     8 shards, 2,000 scenes
    python benchmarks/tiny_devices.py run SHARDS OUT.json KEY=VALUE…  captions, and how many are right
    python benchmarks/tiny_devices.py compare A.json B.json …         each against the first

Shapes and colors are compared with what was drawn, so that a caption on another's picture shows.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from drawing import draw_samples, write_shard
from helpers import parse_caption

SHARDS, SAMPLES = 8, 250


def draw(folder: Path) -> None:
    """Write the shards, and the truth about their scenes beside them."""
    folder.mkdir(parents=True)
    truth = {}
    for number in range(SHARDS):
        samples = draw_samples(SAMPLES, 7000 + number, plain=True, name=f"s{number}")
        write_shard(folder / f"{number:05d}.tar", samples)
        for sample in samples:
            assert sample.picture is not None
            truth[sample.key] = [[s.color, s.kind] for s in sample.picture.shapes]
    (folder / "truth.json").write_text(json.dumps(truth))


def run(folder: Path, out: Path, words: list[str]) -> None:
    """Recaption the shards and keep the captions."""
    with tempfile.TemporaryDirectory() as name:
        where = [f"data.shards={folder}/*.tar", f"output.dir={name}/run"]
        command = [sys.executable, "-m", "recaption.launch", *where, *words]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            for log in Path(name, "run/.recaption/logs").glob("**/*.log"):
                print(log.name, log.read_text(errors="replace")[-4000:], sep="\n")
            raise SystemExit("the run failed")
        captions = {}
        for tar in sorted(Path(name, "run").glob("*.tar")):
            with tarfile.open(fileobj=io.BytesIO(tar.read_bytes())) as members:
                for member in members:
                    if member.name.endswith(".txt"):
                        file = members.extractfile(member)
                        assert file is not None
                        captions[member.name.removesuffix(".txt")] = file.read().decode()
    out.write_text(json.dumps(captions))
    truth = json.loads((folder / "truth.json").read_text())
    for shapes in (1, 2, 3):
        keys = [key for key, things in truth.items() if len(things) == shapes]
        right = sum(
            [list(s) for s in parse_caption(captions[key]).names] == truth[key] for key in keys
        )
        print(f"{out.name}: {shapes} shapes: {right} of {len(keys)} right in shape and color")


def compare(files: list[Path]) -> None:
    """Print how many captions equal the first file's."""
    first, *others = (json.loads(file.read_text()) for file in files)
    for file, other in zip(files[1:], others, strict=True):
        same = sum(first[key] == other[key] for key in first)
        share = f"{same / len(first):.2%}"
        print(f"{file.name} and {files[0].name}: {same} of {len(first)} equal ({share})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("draw", "run", "compare"))
    parser.add_argument("words", nargs="+")
    args = parser.parse_args()
    if args.action == "draw":
        draw(Path(args.words[0]))
    elif args.action == "run":
        run(Path(args.words[0]), Path(args.words[1]), args.words[2:])
    else:
        compare([Path(word) for word in args.words])


if __name__ == "__main__":
    main()
