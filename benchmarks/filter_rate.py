"""How many rows per second recaption.filter looks at, over whole columns and row by row.

    python benchmarks/filter_rate.py [--shards 8] [--rows 10000] [--words 60]

The rows are those of a run with two prompts; one caption in ten is not ASCII. Each figure is rows
per second of a core, reading included: of the columns that are needed, and, row by row, of all.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from recaption.filter.names import examples, fulfilling, names_of
from recaption.filter.where import Where
from recaption.run.columns import Columns
from recaption.run.rows import read_table, write_rows

COLUMNS = Columns(("short", "detailed"), ("watermark_score",))
EXPRESSIONS = (
    "watermark_score < 0.5",
    "watermark_score < 0.5 and not truncated and min_side >= 256",
    "tokens / width < 1 and finish_reason == 'stop' and 'river' in caption",
    "len(caption) >= 20 and 'red' in lower(caption_detailed)",
    "words(caption_detailed) > 40",
    "caption in caption_detailed",
)
WORDS = "a the red river dog house with of near small tree's sky".split()


def row(draw: random.Random, i: int, words: int) -> dict[str, Any]:
    text = " ".join(draw.choices(WORDS, k=words)) + (" café" if i % 10 == 0 else "")
    short = " ".join(text.split()[:12])
    made = dict.fromkeys(("reason", "caption_original", "attempts"), "")
    made |= {"key": f"{i:08d}", "index": i, "status": "captioned", "tries": 1, "strikes": 0}
    made |= {"width": draw.randint(100, 2000), "height": draw.randint(100, 2000), "attempt": "a"}
    made |= {"watermark_score": draw.random(), "image_hash": f"{draw.getrandbits(256):064x}"}
    answers = {
        name: {"caption": c, "finish_reason": "stop", "tokens": len(c) // 4, "flags": ""}
        for name, c in (("short", short), ("detailed", text))
    }
    answers["detailed"]["flags"] = "truncated" if i % 20 == 0 else ""
    return {**made, **COLUMNS.answered(answers)}


def by_columns(where: Where, sidecar: Path) -> list[bool]:
    """As filter does it."""
    return fulfilling(sidecar, COLUMNS, where)


def by_rows(where: Where, sidecar: Path) -> list[bool]:
    """The evaluator of rows, over every column."""
    table = read_table(sidecar)
    made = {name: known.made(table) for name, known in names_of(COLUMNS).items()}
    values = {name: column.to_pylist() for name, column in made.items()}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return [where(row) for row in rows]


def rate(look: Callable[[Path], list[bool]], sidecars: list[Path]) -> tuple[float, int]:
    """Rows per second of a core, and how many fulfill the expression."""
    started, found = time.process_time(), [look(path) for path in sidecars]
    return sum(map(len, found)) / (time.process_time() - started), sum(map(sum, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=60, help="of a detailed caption")
    options = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        sidecars = [Path(folder) / f"{n}.parquet" for n in range(options.shards)]
        for path in sidecars:
            write_rows(path, [row(draw, i, options.words) for i in range(options.rows)], COLUMNS)
        print(f"{'columns':>12} {'rows':>10}  rows/s")
        for text in EXPRESSIONS:
            where = Where(text, examples(COLUMNS))
            quick, many = rate(partial(by_columns, where), sidecars)
            slow, same = rate(partial(by_rows, where), sidecars)
            assert many == same, text
            print(f"{quick:12,.0f} {slow:10,.0f}  {text}")


if __name__ == "__main__":
    main()
