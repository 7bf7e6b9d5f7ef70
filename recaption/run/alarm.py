"""data.alarm: whether so many samples are rejected or failed that the run is no success."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from recaption.run.rows import FAILED, FILTERED, REJECTED, STATES
from recaption.run.scan import RunState

BAD = (REJECTED, FAILED)
SHOWN = 3  # reasons in a message
KEY = "data.alarm"  # every verdict begins with it


def verdict(share: float, counts: Mapping[str, int], reasons: Counter[str], whose: str) -> str:
    """Why samples with these counts by state are no success, or ''; `whose` says which samples."""
    bad = sum(counts.get(state, 0) for state in BAD)
    judged = sum(counts.get(state, 0) for state in STATES if state != FILTERED)
    if bad <= share * judged:
        return ""
    often = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(SHOWN))
    text = f"{KEY}={share:g}: {bad} of {judged} samples {whose} are rejected or failed"
    return f"{text}: {often}" if often else text


def of_shards(share: float, state: RunState, names: Iterable[str]) -> str:
    """The verdict on these shards of a run, as far as they are published.

    Samples that a retry asked again for being rejected or failed, and that are so again, don't count.
    """
    names = list(names)
    counts: Counter[str] = Counter()
    for name in names:
        counts.update(state.done.get(name, {}))
        counts.subtract(state.again.get(name, {}))
    return verdict(share, counts, reasons_of(state, names), "of the selected shards")


def reasons_of(state: RunState, names: Iterable[str]) -> Counter[str]:
    """Why samples of these shards are rejected or failed, by what each shard's log line says."""
    reasons: Counter[str] = Counter()
    for name in names:
        for reason, (count, _) in state.reasons.get(name, {}).items():
            if reason.startswith(BAD):
                reasons[reason] += count
    return reasons
