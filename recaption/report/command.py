"""recaption.report: runs as one page to look at."""

from __future__ import annotations

import time
import uuid
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recaption import __version__
from recaption.cli.progress import Progress
from recaption.errors import UserError, bad_value
from recaption.report.charts import histograms
from recaption.report.gallery import Reads, make_gallery, to_json
from recaption.report.gallery_choice import choose
from recaption.report.limits import ROWS, SHARDS
from recaption.report.page import page
from recaption.report.runs import Column, Source, in_order, open_source, page_columns
from recaption.report.statistics import Statistics, read_statistics
from recaption.report.summary import column_summary, run_summary
from recaption.run import publish
from recaption.run.scan import named

MOST_RUNS = 12


def report(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    if len(options.runs) > MOST_RUNS:
        raise UserError(f"report: at most {MOST_RUNS} run directories, given: {len(options.runs)}")
    output = _output(options)
    sources = [
        open_source(number, root, options.inputs) for number, root in enumerate(options.runs)
    ]
    columns = page_columns(sources)
    found = _statistics(sources, options)
    items, offered = _gallery(sources, found, options)
    data = {
        "version": __version__,
        "made": time.time(),
        "runs": [run_summary(s, f) for s, f in zip(sources, found, strict=True)],
        "columns": [column_summary(c, found[c.source.number]) for c in columns],
        "histograms": histograms(columns, found),
        "scores": list(dict.fromkeys(name for s in sources for name in s.columns.scores)),
        "gallery": items,
        "offered": offered,
    }
    content = page(data)
    publish.replace(output, content, output.with_name(f".{output.name}@{uuid.uuid4().hex}"))
    _say(output, content, sources, columns, found, len(items))
    return 0


def _statistics(sources: Sequence[Source], options: Namespace) -> list[Statistics]:
    """Read as many shards as allowed, the same ones of every run."""
    chosen: list[list[str]] = [[] for _ in sources]
    shards = rows = 0
    for url in in_order(sources):
        having = [source for source in sources if url in source.published]
        shards += len(having)
        rows += sum(source.rows_of(url) for source in having)
        if shards > len(having) and _beyond(options.shards, shards, rows):
            break
        for source in having:
            chosen[source.number].append(url)
    return [
        read_statistics(source, urls, options.samples)
        for source, urls in zip(sources, chosen, strict=True)
    ]


def _beyond(limit: int | None, shards: int, rows: int) -> bool:
    if limit is None:
        return False
    return shards > limit or (limit == SHARDS and rows > ROWS)


def _gallery(
    sources: Sequence[Source], found: Sequence[Statistics], options: Namespace
) -> tuple[list[dict[str, Any]], int]:
    """The gallery's items as JSON, and among how many samples they were chosen."""
    chosen = choose([f.candidates for f in found], options.samples)
    with Progress(len(chosen), "picture", announce=False) as progress:
        reads = Reads(options.fetch, options.allow_pipe)
        items = make_gallery(sources, chosen, reads=reads, tell=progress.show)
    return [to_json(sources, item) for item in items], max(f.rows for f in found)


def _say(
    output: Path,
    content: bytes,
    sources: Sequence[Source],
    columns: Sequence[Column],
    found: Sequence[Statistics],
    pictures: int,
) -> None:
    print(f"{output}: {len(columns)} columns, {pictures} pictures, {len(content) / 1e6:.1f} MB")
    for source, one in zip(sources, found, strict=True):
        done = len(source.state.done)
        if source.state.given_up:
            print(f"{source.paths.root}: {named(source.state.given_up)}")
        if one.shards < done:
            print(
                f"{source.paths.root}: flags and histograms count {one.rows:,} samples of "
                f"{one.shards:,} of {done:,} shards; --shards all counts every one"
            )
        for name in one.unreadable[:3]:
            print(f"{source.paths.sidecar(name)}: cannot be read (see recaption.verify)")


def _output(options: Namespace) -> Path:
    output = Path(options.output).expanduser().absolute()
    if output.suffix not in (".html", ".htm"):
        raise bad_value("-o", options.output, "must end in .html")
    if not output.parent.is_dir() or output.is_dir():
        raise bad_value("-o", options.output, "must be a file in a folder that exists")
    return output
