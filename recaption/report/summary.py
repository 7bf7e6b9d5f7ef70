"""The page's summary of each run: counts, speed, flags, reasons of failures."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from recaption.report.gallery import clip
from recaption.report.runs import Column, Source
from recaption.report.statistics import Statistics
from recaption.report.throughput import throughput
from recaption.run.record import read_submission, submission_numbers
from recaption.run.rows import STATES, without_numbers

FREQUENT = 20  # reasons
LONGEST_PROMPT = 8000


def run_summary(source: Source, found: Statistics) -> dict[str, Any]:
    """One run; its counts of states are exact, from the tasks' logs."""
    run, state = source.run, source.state
    selected = {
        position
        for number in submission_numbers(source.paths)
        for position in read_submission(source.paths, number).selected
    }
    counts = state.samples()
    speed = throughput(source.paths)
    return {
        "directory": str(source.paths.root),
        "fingerprint": run.fingerprint,
        "created": run.created,
        "model": run.model["name"],
        "revision": run.model.get("revision") or "",
        "engine": run.identity["engine"],
        "shards": {
            "published": len(state.done),
            "failed": len(state.failed),
            "given_up": len(state.given_up),
            "selected": len(selected) or state.total,
            "total": state.total,
        },
        "samples": {name: counts[name] for name in STATES},
        "throughput": None if speed is None else asdict(speed),
        "reasons": _reasons(source),
        "basis": {
            "shards": found.shards,
            "rows": found.rows,
            "captioned": found.captioned,
            "exact": found.shards == len(state.done),
            "unreadable": found.unreadable[:FREQUENT],
        },
        "parent": clip((run.parent or {}).get("run", ""), 300),
    }


def column_summary(column: Column, found: Statistics) -> dict[str, Any]:
    """One prompt of one run."""
    tally = found.tallies[column.prompt.name]
    return {
        "label": column.label,
        "run": column.source.number,
        "prompt": column.prompt.name,
        "system": clip(column.prompt.system, LONGEST_PROMPT),
        "text": clip(column.prompt.text, LONGEST_PROMPT),
        "flags": dict(tally.flags.most_common()),
        "flagged": tally.flagged,
    }


def _reasons(source: Source) -> list[dict[str, Any]]:
    """The most frequent reasons: those of whole shards, then those of samples."""
    shards: dict[str, list[Any]] = {}
    for name, record in source.state.failed.items():
        kind = without_numbers(record["reason"])
        shards.setdefault(kind, [0, name, record["reason"]])[0] += 1
    samples: dict[str, list[Any]] = {}
    for name, reasons in source.state.reasons.items():
        for kind, (count, key) in reasons.items():
            samples.setdefault(kind, [0, f"{name}/{key}", kind])[0] += count
    return [
        {"what": what, "count": count, "example": clip(example, 300), "reason": clip(reason, 300)}
        for what, found in (("shard", shards), ("sample", samples))
        for count, example, reason in sorted(found.values(), key=lambda entry: -entry[0])[:FREQUENT]
    ]
