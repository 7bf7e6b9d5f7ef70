"""Counts over the rows of a run: lengths, tokens, flags, scores; and candidates for the gallery."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recaption.report.gallery_choice import Array, Candidates, draws, severity
from recaption.report.runs import Source, hash_of
from recaption.run.columns import split_flags
from recaption.run.rows import CAPTIONED, read_table

BATCH = 64  # sidecars that are read together
LONGEST = 65_535  # characters or tokens; longer ones count as this
POOL = 4  # random candidates per place in the gallery, from as few shards as possible


@dataclass
class Tally:
    """Counts for one prompt of one run: captions by number of characters, of tokens, and by flag."""

    lengths: Array = field(default_factory=lambda: np.zeros(1, np.int64))
    tokens: Array = field(default_factory=lambda: np.zeros(1, np.int64))
    flags: Counter[str] = field(default_factory=Counter)
    flagged: int = 0


@dataclass
class Statistics:
    """Counts over the rows of the shards that were read."""

    tallies: dict[str, Tally]  # per prompt
    candidates: Candidates
    scores: dict[str, list[Array]] = field(default_factory=dict)
    shards: int = 0
    rows: int = 0
    captioned: int = 0
    unreadable: list[str] = field(default_factory=list)


def read_statistics(source: Source, urls: Sequence[str], gallery: int) -> Statistics:
    """Read the sidecars of `urls`, in this order; `gallery` is how many candidates to keep."""
    found = Statistics({p: Tally() for p in source.columns.prompts}, Candidates(gallery))
    found.scores = {name: [] for name in source.columns.scores}
    pool = _pool(source, urls, gallery)
    tables = _tables(source, urls, found)
    while batch := list(itertools.islice(tables, BATCH)):
        _count(source, found, batch, pool)
    return found


def _pool(source: Source, urls: Sequence[str], gallery: int) -> set[str]:
    """The few shards from which random samples are drawn."""
    rows, chosen = 0, set()
    for url in urls:
        if rows >= POOL * gallery:
            break
        rows += source.rows_of(url)
        chosen.add(url)
    return chosen


def _tables(
    source: Source, urls: Sequence[str], found: Statistics
) -> Iterator[tuple[str, pa.Table]]:
    names = source.read("status")

    def read(url: str) -> pa.Table | None:
        try:
            table = read_table(source.paths.sidecar(source.published[url].name), names)
        except (pa.ArrowException, OSError, ValueError):
            return None
        return table if set(names) <= set(table.column_names) else None

    threads = 2 * len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(urls), BATCH):
            some = urls[start : start + BATCH]
            for url, table in zip(some, pool.map(read, some), strict=True):
                if table is None:
                    found.unreadable.append(source.published[url].name)
                else:
                    yield url, table


def _count(
    source: Source, found: Statistics, batch: Sequence[tuple[str, pa.Table]], pool: set[str]
) -> None:
    urls = [url for url, _ in batch]
    sizes = [table.num_rows for _, table in batch]
    table = pa.concat_tables([t for _, t in batch]).combine_chunks()
    found.shards += len(batch)
    found.rows += table.num_rows
    if not table.num_rows:
        return
    shards = np.repeat(np.arange(len(urls)), sizes)
    rows = np.concatenate([np.arange(size) for size in sizes])
    draw = np.concatenate(
        [draws(hash_of(u), size) for u, size in zip(urls, sizes, strict=True)]
    ).astype(np.float64)
    captioned = pc.equal(table["status"], CAPTIONED).to_numpy()
    found.captioned += int(captioned.sum())
    measures: dict[str, tuple[Array, Array]] = {}  # values, and a mask of those that count
    for prompt, tally in found.tallies.items():
        called = source.columns.of(prompt)
        lengths = _numbers(pc.utf8_length(table[called["caption"]]))
        tokens = _numbers(table[called["tokens"]])
        tally.lengths = _added(tally.lengths, lengths[captioned])
        tally.tokens = _added(tally.tokens, tokens[captioned])
        shown = table[called["flags"]].filter(pa.array(captioned))
        for entry in pc.value_counts(shown).to_pylist():
            flags = split_flags(entry["values"])
            tally.flagged += entry["counts"] if flags else 0
            for flag in flags:
                tally.flags[flag] += entry["counts"]
        measures[called["caption"]] = lengths, captioned
    for name in source.columns.scores:
        values = table[name].to_numpy()
        known = np.isfinite(values)
        found.scores[name].append(values[known])
        measures[name] = values, known
    for name, (values, where) in measures.items():
        for sign in (1, -1):
            found.candidates.add_extreme(
                f"{name}{sign}", sign * values[where], urls, shards[where], rows[where]
            )
    in_pool = np.array([url in pool for url in urls])[shards]
    _add_kinds(source, found.candidates, table, urls, (shards, rows, draw, in_pool))


def _add_kinds(
    source: Source,
    candidates: Candidates,
    table: pa.Table,
    urls: Sequence[str],
    arrays: tuple[Array, Array, Array, Array],
) -> None:
    """Sort the rows into kinds: their state, or the flags of their captions."""
    shards, rows, draw, in_pool = arrays
    each = (pc.fill_null(table[name], "") for name in source.columns.flags)
    flags = pc.binary_join_element_wise(*each, ",")
    kinds = pc.if_else(pc.equal(table["status"], CAPTIONED), flags, table["status"])
    states = set(pc.unique(table["status"]).to_pylist()) - {CAPTIONED}
    encoded = kinds.combine_chunks().dictionary_encode()
    codes = _numbers(encoded.indices)
    for code, kind in enumerate(encoded.dictionary.to_pylist()):
        here = codes == code
        bad = severity(kind, "") if kind in states else severity(CAPTIONED, kind)
        if bad:
            candidates.add_kind(kind, bad, draw[here], urls, shards[here], rows[here])
        else:
            here &= in_pool
            candidates.good.add(draw[here], urls, shards[here], rows[here])


def _numbers(values: Any) -> Array:
    array: Array = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    return array


def _added(counts: Array, values: Array) -> Array:
    more = np.bincount(np.minimum(values, LONGEST), minlength=len(counts))
    more[: len(counts)] += counts
    return more
