"""The runs of a report, and their columns on its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from recaption.config.schema import Prompt
from recaption.run.addresses import public
from recaption.run.columns import Columns, columns_of
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run, open_run
from recaption.run.scan import RunState, scan
from recaption.shard.input_locations import located


@dataclass(frozen=True)
class Source:
    """One run as the report reads it."""

    number: int
    paths: RunPaths
    run: Run
    state: RunState
    published: dict[str, InputShard]  # by the input's URL, by which runs are joined
    columns: Columns  # of its rows

    def read(self, *names: str) -> list[str]:
        """Columns that the page shows: the given ones, those of answers, and scores."""
        answers = [name for p in self.columns.prompts for name in self.columns.of(p).values()]
        return [*names, *answers, *self.columns.scores]

    def rows_of(self, url: str) -> int:
        """Samples of a published shard, by the tasks' logs."""
        return sum(self.state.done[self.published[url].name].values())


@dataclass(frozen=True)
class Column:
    """One prompt of one run, a column of the page."""

    source: Source
    prompt: Prompt
    label: str = field(default="")


def open_source(number: int, root: str | Path, inputs: str | None = None) -> Source:
    """Read the state of a run; UserError if `root` is no run directory.

    `inputs` is a pattern that says where its inputs are, where the run does not.
    """
    paths, run = open_run(root)
    if inputs is not None:
        run = located(run, inputs, "--inputs")
    state = scan(paths, run)
    published = {public(shard.url): shard for shard in run.shards if shard.name in state.done}
    return Source(number, paths, run, state, published, columns_of(run))


def page_columns(sources: Sequence[Source]) -> list[Column]:
    """Every prompt of every run, labeled so that no two look alike."""
    plain = [Column(source, prompt) for source in sources for prompt in source.run.prompts]
    names = [f"{c.source.run.model['name']} · {c.prompt.name}" for c in plain]
    count = Counter(names)
    tails = _tails([source.paths.root for source in sources])
    labels = [
        name if count[name] == 1 else f"{name} · {tails[column.source.number]}"
        for name, column in zip(names, plain, strict=True)
    ]
    return [Column(c.source, c.prompt, label) for c, label in zip(plain, labels, strict=True)]


def in_order(sources: Sequence[Source]) -> list[str]:
    """URLs of published shards: those in most runs first, then by a hash of the URL.

    The order depends on nothing but the inputs, so that several runs, and several reports, read
    the same shards.
    """
    runs = Counter(url for source in sources for url in source.published)
    return sorted(runs, key=lambda url: (-runs[url], hash_of(url)))


def hash_of(url: str) -> int:
    """A 64-bit hash that is the same on every machine."""
    return xxhash.xxh3_64_intdigest(url.encode("utf-8", "replace"))


def _tails(roots: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart."""
    for length in range(1, max(len(root.parts) for root in roots) + 1):
        tails = ["/".join(root.parts[-length:]) for root in roots]
        if len(set(tails)) == len(tails):
            return tails
    return [f"{number + 1}" for number in range(len(roots))]  # the same run twice
