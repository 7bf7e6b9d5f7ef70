"""Histograms with the same bins for every column, so that columns can be compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from recaption.report.gallery_choice import Array
from recaption.report.runs import Column
from recaption.report.statistics import LONGEST, Statistics

BINS = 40  # at most
TAIL = 0.999  # share of the values in the bins before the last one, which is open


def histograms(columns: Sequence[Column], found: Sequence[Statistics]) -> list[dict[str, Any]]:
    """Caption length and tokens of every column, then each score of every run that has it."""
    tallies = [found[c.source.number].tallies[c.prompt.name] for c in columns]
    made = [
        _of_counts("Caption length", "characters", [t.lengths for t in tallies]),
        _of_counts("Tokens", "tokens per caption", [t.tokens for t in tallies]),
    ]
    names = list(dict.fromkeys(name for s in found for name in s.scores))
    for name in names:
        values = [
            np.concatenate(found[c.source.number].scores.get(name) or [np.zeros(0, np.float32)])
            for c in columns
        ]
        made.append(_of_values(name, values))
    return [one for one in made if one]


def _of_counts(title: str, unit: str, counts: Sequence[Array]) -> dict[str, Any]:
    """A histogram, with exact quantiles, from the counts of each whole number."""
    size = max(map(len, counts))
    together: Array = np.sum([np.pad(c, (0, size - len(c))) for c in counts], axis=0)
    if not together.sum():
        return {}
    typical = int(np.searchsorted(np.cumsum(together), TAIL * together.sum())) + 1
    width = _nice_step(typical / BINS)
    bins = math.ceil(typical / width)
    edges = [i * width for i in range(bins + 1)]
    columns = []
    for count in counts:
        inside = np.pad(count, (0, max(0, edges[-1] - len(count))))
        bars = [int(inside[a:b].sum()) for a, b in itertools.pairwise(edges)]
        columns.append({"bars": bars, "over": int(count[edges[-1] :].sum()), **_quantiles(count)})
    return {"title": title, "unit": unit, "edges": edges, "columns": columns}


def _quantiles(count: Array) -> dict[str, Any]:
    total = int(count.sum())
    if not total:
        return {"n": 0}
    running = np.cumsum(count)
    low, median, high = (int(np.searchsorted(running, q * total)) for q in (0.05, 0.5, 0.95))
    mean = float((count * np.arange(len(count))).sum() / total)
    most = int(np.flatnonzero(count)[-1])
    bound = {"bounded": True} if most == LONGEST else {}
    return {"n": total, "p5": low, "median": median, "p95": high, "mean": round(mean, 2), **bound}


def _of_values(title: str, values: Sequence[Array]) -> dict[str, Any]:
    together = np.concatenate(values)
    if not len(together):
        return {}
    low, high = float(together.min()), float(together.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    columns = []
    for some in values:
        bars = np.histogram(some, edges)[0].tolist()
        shape = {"bars": bars, "over": 0, "n": len(some)}
        if len(some):
            p5, median, p95 = (round(float(v), 4) for v in np.quantile(some, (0.05, 0.5, 0.95)))
            shape |= {"p5": p5, "median": median, "p95": p95, "mean": round(float(some.mean()), 4)}
        columns.append(shape)
    nice = [float(f"{e:.5g}") for e in edges]
    return {"title": title, "unit": "score", "edges": nice, "columns": columns}


def _nice_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, … that is not below `least`."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= least:
                return step * factor
        step *= 10
