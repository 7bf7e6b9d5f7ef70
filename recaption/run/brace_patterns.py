"""Names of shards as trainers take them: brace patterns, and open_clip's command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from recaption.run.paths import stem


def open_clip_command(root: Path, sizes: dict[str, int]) -> str:
    """`sizes` has the samples of every shard to train on; those without any are left out."""
    names = [name for name, size in sizes.items() if size]
    pattern = shard_pattern(names, f"{root}/")
    return (
        f"python -m open_clip_train.main --dataset-type webdataset"
        f" --train-data {shlex.quote(pattern)} --train-num-samples {sum(sizes.values())}"
        " --model ViT-B-32 --batch-size 256 --workers 4"
    )


def shard_pattern(names: Sequence[str], before: str = "") -> str:
    """As few brace patterns as possible; one if the names are consecutive numbers."""
    pieces: list[str] = []
    run: list[str] = []
    for name in [*names, ""]:
        if run and not _follows(run[-1], name):
            pieces.append(_piece(before, run))
            run = []
        run.append(name)
    return "::".join(pieces)


def _follows(before: str, name: str) -> bool:
    first, second = _split(before), _split(name)
    if not first or not second or first[0] != second[0] or len(first[1]) != len(second[1]):
        return False
    return int(second[1]) == int(first[1]) + 1


def _split(name: str) -> tuple[str, str] | None:
    match = re.fullmatch(r"(.*?)(\d+)", stem(name), re.DOTALL)
    return (match[1], match[2]) if match else None


def _piece(before: str, run: list[str]) -> str:
    if len(run) == 1:
        return f"{before}{run[0]}"
    first, last = _split(run[0]), _split(run[-1])
    assert first is not None
    assert last is not None
    return f"{before}{first[0]}{{{first[1]}..{last[1]}}}.tar"
