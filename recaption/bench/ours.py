"""Measuring this program: the engine alone on inputs made beforehand, then tar to published tar.

Both happen in one task with the same engines, so that their ratio says what the pipeline costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from recaption.bench.memory import PeakMemory
from recaption.engine.base import Spec
from recaption.errors import TaskError
from recaption.journal import Journal
from recaption.launch.freeze import freeze
from recaption.launch.plan import inputs
from recaption.pipeline.engines import Death
from recaption.pipeline.librarian import Finished
from recaption.pipeline.loop import Pipeline
from recaption.pipeline.work import OpenShard, Work
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run
from recaption.shard.index import index_shard
from recaption.task.attempt import make_context
from recaption.task.devices import engine_devices, worker_count

REPLAYED = 64  # different inputs per engine
PATIENCE = 1800.0


@dataclass(frozen=True)
class Measured:
    """Images, seconds and tokens of one part; further figures in `details`."""

    images: int
    seconds: float
    tokens: int
    details: dict[str, Any]

    @property
    def rate(self) -> float:
        return self.images / self.seconds


class AllShards:
    """A source that hands out every shard once."""

    def __init__(self, run: Run) -> None:
        self.waiting = iter(list(enumerate(run.shards)))
        self.left = len(run.shards)
        self.last = 0.0
        self.failures: list[str] = []

    def next(self) -> tuple[int, InputShard] | None:
        return next(self.waiting, None)

    def begin(self, position: int) -> bool:
        return True

    def exhausted(self) -> bool:
        return self.left == 0

    def published(self, position: int, finished: Finished) -> None:
        self.left -= 1
        self.last = time.monotonic()

    def failed(self, position: int, reason: str) -> None:
        self.left -= 1
        self.failures.append(reason)


def measure(
    spec_of: Callable[[Run], Spec], config: Any, prompts: list[Any], images: int, folder: Path
) -> tuple[Measured, Measured]:
    """(engine alone, pipeline) over the same number of images."""
    config.output.dir = str(folder)
    paths, run = freeze(config, prompts, inputs(config))
    spec = spec_of(run)
    devices = engine_devices(config)
    workers = worker_count(config, len(devices))
    source = AllShards(run)
    context = make_context(paths, run, "bench", spec)
    started = time.monotonic()
    with PeakMemory() as memory:
        pipeline = Pipeline(
            spec,
            context,
            source,
            devices=devices,
            workers=workers,
            log=paths.logs / "engine.log",
            facts={},
        )
        try:
            _until(pipeline, lambda: all(h.ready for h in pipeline.engines.handles))
            start_seconds = time.monotonic() - started
            alone = _engine_alone(pipeline, paths, run, images)
        except BaseException:
            pipeline.close()
            raise
        began = time.monotonic()
        pipeline.observed = began
        pipeline.running_seconds = pipeline.starved_seconds = 0.0
        parent = time.process_time()
        pipeline.run(lambda: "", lambda _: None)
        parent = time.process_time() - parent
    if source.failures:
        raise TaskError(f"bench: {source.failures[0]}")
    details = {
        "engines": len(devices),
        "workers": workers,
        "start_seconds": start_seconds,
        "starved": pipeline.starved_seconds / pipeline.running_seconds,
        "parent_ms_per_image": 1000 * parent / max(1, pipeline.captioned),
        "peak_memory_mb": memory.peak >> 20,
        "device": pipeline.engines.facts().get("gpu", ""),
    }
    seconds = source.last - began
    return alone, Measured(pipeline.captioned, seconds, pipeline.tokens, details)


def _engine_alone(pipeline: Pipeline, paths: RunPaths, run: Run, images: int) -> Measured:
    works = _prepared(pipeline, paths, run)
    places = [(cast(int, w.offset), w.length) for w in works]
    handles = pipeline.engines.handles
    share = images // len(handles)
    results: list[tuple[float, int]] = []
    warm = max(1, pipeline.engines.settings.max_num_seqs // 4)
    for count in (warm, share):
        results = []
        for handle in handles:
            handle.connection.send(("replay", places, count))
        _replayed(pipeline, results)
    for work in works:
        pipeline.preparation.release(work)
    works[0].shard.journal.path.unlink()
    seconds = max(r[0] for r in results)
    return Measured(share * len(handles), seconds, sum(r[1] for r in results), {})


def _replayed(pipeline: Pipeline, results: list[tuple[float, int]]) -> None:
    """Wait for every engine's answer to a replay."""
    count = len(pipeline.engines.handles)
    _until(pipeline, lambda: len(results) == count, results)


def _prepared(pipeline: Pipeline, paths: RunPaths, run: Run) -> list[Work]:
    """Works of the first shard, prepared by the workers and held in the arena."""
    shard = run.shards[0]
    with open(shard.url, "rb") as file:
        samples = index_shard(file).samples[:REPLAYED]
    journal = Journal(paths.journal(shard.name, "replay"), {})
    opened = OpenShard(-1, shard, 0, shard.url, "", samples, iter(()), journal, 0)
    fresh: Iterator[Work] = (Work(-1 - i, opened, i) for i in range(len(samples)))
    preparation = pipeline.preparation
    deadline = time.monotonic() + PATIENCE
    while len(preparation.ready) < len(samples):
        if time.monotonic() > deadline:
            raise TaskError("bench: preparation does not end")
        preparation.fill(lambda: next(fresh, None))
        connections = preparation.connections()
        for readable in wait(list(connections), 1.0):
            for work in preparation.receive(connections[cast(Connection, readable)]):
                raise TaskError(f"bench: {work.sample.key}: {work.reason}")
    works = list(preparation.ready)
    preparation.ready.clear()
    return works


def _until(
    pipeline: Pipeline,
    reached: Callable[[], bool],
    results: list[tuple[float, int]] | None = None,
) -> None:
    """Handle engines' messages until `reached()`."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        connections = pipeline.engines.connections()
        for readable in wait(list(connections), 1.0):
            message = pipeline.engines.receive(connections[cast(Connection, readable)])
            if isinstance(message, Death):
                raise TaskError(
                    f"bench: an engine died: {message.reason}; see {pipeline.engines.log}"
                )
            if message[0] == "replayed" and results is not None:
                results.append((message[1], message[2]))
        if time.monotonic() > deadline:
            raise TaskError("bench: an engine does not answer")
