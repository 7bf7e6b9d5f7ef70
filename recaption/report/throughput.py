"""Images per second over time, from the tasks' logs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recaption.run.paths import INHERITED, RunPaths, entries
from recaption.run.tasklog import read_log

BINS = 60


@dataclass(frozen=True)
class Throughput:
    """`rates` (samples/s) in intervals of `seconds` from `start` (Unix time) on."""

    start: float
    seconds: float
    rates: list[float]
    overall: float  # samples/s while any task was at work
    working: float  # seconds in which any task was at work


def throughput(paths: RunPaths) -> Throughput | None:
    """The throughput of all attempts together; None if their logs do not tell."""
    curves = [curve for curve in map(_curve, _logs(paths)) if curve]
    if not curves:
        return None
    start, end = min(c[0][0] for c in curves), max(c[-1][0] for c in curves)
    edges = np.linspace(start, max(end, start + 1e-3), BINS + 1)
    done = np.zeros(BINS)
    for curve in curves:
        times, counts = np.array(curve).T
        done += np.diff(np.interp(edges, times, counts))
    seconds = float(edges[1] - edges[0])
    working = _union([(c[0][0], c[-1][0]) for c in curves])
    total = sum(c[-1][1] for c in curves)
    rates = [round(float(n) / seconds, 3) for n in done]
    return Throughput(start, seconds, rates, total / working if working else 0.0, working)


def _logs(paths: RunPaths) -> list[Path]:
    return [paths.tasks / name for name in sorted(entries(paths.tasks)) if name.endswith(".jsonl")]


def _curve(path: Path) -> list[tuple[float, float]]:
    """(time, samples settled by then) of one attempt; empty if it settled none."""
    if path.name.startswith(INHERITED):
        return []
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    start, published = None, 0
    for event in read_log(path):
        match event["event"]:
            case "start":
                start = event["time"]
            case "beat":
                points["beat"].append((event["time"], event["settled"]))
            case "published":
                published += sum(event["counts"].values())
                points["published"].append((event["time"], published))
    curve = points["beat"] or points["published"]
    if not curve or not curve[-1][1]:
        return []
    return [(curve[0][0] if start is None else min(start, curve[0][0]), 0.0), *curve]


def _union(spans: list[tuple[float, float]]) -> float:
    total, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total
