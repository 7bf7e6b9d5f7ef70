"""recaption.report: runs as one page to look at."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recaption import __version__
from recaption.cli.terminal import is_live
from recaption.errors import UserError, bad_choice, bad_value
from recaption.report.charts import histograms
from recaption.report.choice import choose
from recaption.report.gallery import Reads, make_gallery, to_json
from recaption.report.page import page
from recaption.report.runs import Column, Source, in_order, open_source, page_columns
from recaption.report.statistics import Statistics, read_statistics
from recaption.report.summary import column_summary, run_summary
from recaption.run import publish
from recaption.run.scan import named

SAMPLES = 240
MOST_SAMPLES = 5000
MOST_RUNS = 12
SHARDS = 2000
ROWS = 1_000_000
ALL = "all"

HELP = f"""\
usage: python -m recaption.report RUN [RUN …] -o FILE.html [--samples N] [--shards N] [--fetch]
                                  [--inputs PATTERN] [--allow-pipe]

Writes one HTML file that needs nothing else: counts, throughput over time, histograms of caption
lengths, tokens and scores, flags, reasons of failures, and a gallery of pictures with old and new
captions. Several runs, and several prompts of one run, become columns beside the same pictures,
joined by input shard and key. RUN may still be at work; it is only read.

  -o FILE.html  the page; one that exists is replaced
  --samples N   pictures in the gallery, 1 to {MOST_SAMPLES}; default {SAMPLES}: at most about 8 MB
  --shards N    read the rows of at most N published shards, of all runs together; all: of every one
                (a second per 2,000 small ones); default {SHARDS}, and no more than {ROWS:,} rows
  --fetch       fetch remote shards whole for pictures that no published shard holds
  --inputs PATTERN  where the inputs are, if they have moved, or if their URLs are signed or they are
                commands, which is not stored: what data.shards was
  --allow-pipe  with --fetch, also runs the commands of pipe: shards

Exact, whatever the number of shards: counts of shards and samples by state and throughput, which
come from the tasks' logs (reasons: the five most frequent ones of each shard). Flags and histograms
count every row of the shards that are read. If those are not all, they are chosen by a hash of their
URL, the same at every call, and the page says how many they are.

In the gallery are the worst samples of every kind first (states without a caption, combinations of
flags), then the shortest and longest captions and the lowest and highest scores, then samples drawn
by a hash. The same runs give the same gallery.

Exit code: 0 when the page is written, 2 for a wrong use.
"""


@dataclass
class _Options:
    runs: list[str] = field(default_factory=list)
    output: Path | None = None
    samples: int = SAMPLES
    shards: int | None = SHARDS  # None: all
    fetch: bool = False
    inputs: str | None = None
    allow_pipe: bool = False


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    options = _parse(arguments)
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


def _statistics(sources: Sequence[Source], options: _Options) -> list[Statistics]:
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
    sources: Sequence[Source], found: Sequence[Statistics], options: _Options
) -> tuple[list[dict[str, Any]], int]:
    """The gallery's items as JSON, and among how many samples they were chosen."""
    chosen = choose([f.candidates for f in found], options.samples)
    progress = is_live(sys.stderr)

    def tell(done: int) -> None:
        if progress:
            print(f"\r{done} of {len(chosen)} pictures", end="", file=sys.stderr, flush=True)

    items = make_gallery(sources, chosen, reads=Reads(options.fetch, options.allow_pipe), tell=tell)
    if progress:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
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


def _output(options: _Options) -> Path:
    if options.output is None:
        raise UserError("-o: needed, the file for the page, such as report.html")
    output = options.output.expanduser().absolute()
    if output.suffix not in (".html", ".htm"):
        raise bad_value("-o", options.output, "must end in .html")
    if not output.parent.is_dir() or output.is_dir():
        raise bad_value("-o", options.output, "must be a file in a folder that exists")
    return output


def _parse(arguments: Sequence[str]) -> _Options:
    options = _Options()
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        name = "-o" if name == "--output" else name
        if name in ("-o", "--samples", "--shards", "--inputs"):
            following = value if equals else next(rest, None)
            if not following:
                raise UserError(f"{name}: needs a value")
            _set(options, name, following)
        elif argument == "--fetch":
            options.fetch = True
        elif argument == "--allow-pipe":
            options.allow_pipe = True
        elif argument.startswith("-"):
            valid = ["--allow-pipe", "--fetch", "--help", "--inputs", "--samples", "--shards", "-o"]
            raise bad_choice("option", argument, valid)
        else:
            options.runs.append(argument)
    if not 1 <= len(options.runs) <= MOST_RUNS:
        raise UserError(f"report: needs 1 to {MOST_RUNS} run directories (see --help)")
    return options


def _set(options: _Options, name: str, value: str) -> None:
    if name == "-o":
        options.output = Path(value)
    elif name == "--inputs":
        options.inputs = value
    elif name == "--shards" and value == ALL:
        options.shards = None
    else:
        most = MOST_SAMPLES if name == "--samples" else sys.maxsize
        if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= most:
            valid = f"a number from 1 to {most}" if name == "--samples" else "a number, or all"
            raise bad_value(name, value, f"must be {valid}")
        setattr(options, name.removeprefix("--"), int(value))
