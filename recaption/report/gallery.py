"""The samples that the page shows: their rows in every run, joined by shard and key, and pictures."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recaption.config.schema import Image as Rules
from recaption.report.gallery_choice import Place, severity
from recaption.report.pictures import Copy, Wanted, copies
from recaption.report.runs import Source
from recaption.run import shared
from recaption.run.addresses import is_command, is_incomplete
from recaption.run.columns import split_flags
from recaption.run.record import read_submission, submission_numbers
from recaption.run.rows import CAPTIONED
from recaption.shard.settings import settings_of
from recaption.shard.source import local_path

LONGEST_TEXT = 4000  # characters of a caption on the page

Row = dict[str, Any]


@dataclass(frozen=True)
class Reads:
    """Which sources may be read for pictures that no published shard holds."""

    fetch: bool = False  # remote shards, whole
    commands: bool = False  # pipe: shards, which are run


@dataclass
class Item:
    """One picture: its row in each run that has it."""

    url: str
    key: str
    rows: dict[int, Row] = field(default_factory=dict)  # by the run's number
    picture: Copy = field(default_factory=Copy)


def make_gallery(
    sources: Sequence[Source],
    chosen: Sequence[Place],
    *,
    reads: Reads,
    tell: Callable[[int], None],
) -> list[Item]:
    """The items at the chosen places, worst first."""
    items = _joined(sources, chosen)
    _add_pictures(sources, items, reads, tell)
    return sorted(items, key=lambda item: -_severity(sources, item))


def to_json(sources: Sequence[Source], item: Item) -> dict[str, Any]:
    """An item as the page's script reads it."""
    originals = [row["caption_original"] for row in item.rows.values()]
    names = [source.published[item.url].name for source in sources if source.number in item.rows]
    made = item.picture
    picture = f"data:image/webp;base64,{base64.b64encode(made.content).decode()}"
    return {
        "key": clip(item.key, 300),
        "shard": clip(names[0], 300),
        "old": clip(originals[0]),
        "picture": picture if made.content else "",
        "why": clip(made.reason, 300),
        "width": made.width,
        "height": made.height,
        "bad": _severity(sources, item),
        "cells": [cell for source in sources for cell in _cells(source, item)],
    }


def clip(text: str | None, length: int = LONGEST_TEXT) -> str:
    """A text of at most `length` characters, with a note if it was cut."""
    text = text or ""
    if len(text) <= length:
        return text
    return f"{text[:length]}… ({len(text)} characters)"


def _cells(source: Source, item: Item) -> list[dict[str, Any] | None]:
    """The cells of one run, one per prompt; None if the run does not have the sample."""
    row = item.rows.get(source.number)
    if row is None:
        return [None] * len(source.columns.prompts)
    scores = {name: row[name] for name in source.columns.scores if row[name] is not None}
    shared = {"status": row["status"], "reason": clip(row["reason"], 300), "scores": scores}
    return [
        {
            **shared,
            "caption": clip(answer["caption"]),
            "length": len(answer["caption"] or ""),
            "tokens": answer["tokens"],
            "flags": split_flags(answer["flags"]),
        }
        for answer in source.columns.answers_in(row).values()
    ]


def _severity(sources: Sequence[Source], item: Item) -> float:
    worst = [
        severity(row["status"], ",".join(row[name] or "" for name in source.columns.flags))
        for source in sources
        if (row := item.rows.get(source.number)) is not None
    ]
    return max(worst) + sum(worst) / 1000


def _joined(sources: Sequence[Source], chosen: Sequence[Place]) -> list[Item]:
    wanted: dict[str, list[int]] = defaultdict(list)
    for url, row in chosen:
        wanted[url].append(row)
    items: dict[tuple[str, str], Item] = {}
    for url, places in wanted.items():
        tables = {
            s.number: table
            for s in sources
            if url in s.published and (table := _table(s, url)) is not None
        }
        keys = pa.array(_keys(list(tables.values()), places), pa.string())
        for number, table in tables.items():
            for row in table.filter(pc.is_in(table["key"], keys)).to_pylist():
                item = items.setdefault((url, row["key"]), Item(url, row["key"]))
                item.rows.setdefault(number, row)
    return list(items.values())


def _keys(tables: Sequence[pa.Table], places: Sequence[int]) -> list[str]:
    """The keys of rows; runs with data.max_samples have fewer rows than others."""
    keys: dict[str, None] = {}
    for place in places:
        table = next((t for t in tables if place < t.num_rows), None)
        if table is not None:
            keys.setdefault(table["key"][place].as_py())
    return list(keys)


def _table(source: Source, url: str) -> pa.Table | None:
    path = source.paths.sidecar(source.published[url].name)
    names = source.read("key", "status", "reason", "caption_original")
    try:
        return shared.patiently(lambda: pq.ParquetFile(path)).read(names, use_threads=False)
    except (pa.ArrowException, OSError, ValueError):
        return None  # it vanished or changed after it was chosen


def _add_pictures(
    sources: Sequence[Source], items: Sequence[Item], reads: Reads, tell: Callable[[int], None]
) -> None:
    """Add pictures from published shards that hold them, or else from the inputs."""
    limits = _limits(sources)
    todo = list(items)
    for place_of in (_published, partial(_input, reads=reads)):
        groups: dict[str, tuple[Wanted, list[Item]]] = {}
        for item in todo:
            place = place_of(sources, item)
            if isinstance(place, Wanted):
                groups.setdefault(place.path, (place, []))[1].append(item)
            elif place and not item.picture.reason:
                item.picture = Copy(reason=place)
        wanted = [replace(w, keys=tuple(i.key for i in some)) for w, some in groups.values()]
        made = copies(wanted, *limits, partial(_tell, tell, len(items) - len(todo)))
        for (_, some), results in zip(groups.values(), made, strict=True):
            for item, result in zip(some, results, strict=True):
                item.picture = result
        todo = [item for item in items if not item.picture.content]


def _tell(tell: Callable[[int], None], before: int, now: int) -> None:
    tell(before + now)


def _published(sources: Sequence[Source], item: Item) -> Wanted | None:
    for source in sources:
        row = item.rows.get(source.number)
        if row is None or row["status"] != CAPTIONED:
            continue
        tar = source.paths.tar(source.published[item.url].name)
        if not source.run.captions_only and tar.exists():
            return Wanted(str(tar), (), *_reading(source))
    return None


def _input(sources: Sequence[Source], item: Item, reads: Reads) -> Wanted | str:
    source = next(s for s in sources if s.number in item.rows)
    address = source.published[item.url].source
    if is_command(address) and not reads.commands:
        return "its shard is a command's output: --fetch with --allow-pipe runs it"
    if is_incomplete(address):
        return "its URL is not stored whole, since it may hold a secret: --inputs says it"
    if local_path(address) is None and not reads.fetch:
        return "its shard is remote: --fetch gets it"
    layout = settings_of(source.run).layout
    return Wanted(address, (), *_reading(source), layout)


def _reading(source: Source) -> tuple[tuple[str, ...], Rules]:
    covered = source.run.identity
    rules = {key.partition(".")[2]: covered[key] for key in covered if key.startswith("image.")}
    return tuple(covered["data.image_keys"]), Rules(**rules)


def _limits(sources: Sequence[Source]) -> tuple[float, int]:
    """Seconds and megabytes that decoding a picture may take: those of the latest submission."""
    for source in sources:
        numbers = submission_numbers(source.paths)
        if numbers:
            image = read_submission(source.paths, numbers[-1]).config["image"]
            return image["decode_seconds"], image["decode_mb"]
    rules = Rules()
    return rules.decode_seconds, rules.decode_mb
