"""Measures this program: the engine alone on prepared inputs, then all from tar to published tar.

Both use the same engines in one task, so that their ratio says what the pipeline costs.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

from recaption.bench.measured import Measured, middle_rate
from recaption.bench.memory_watch import Watch
from recaption.config.records import typed_config
from recaption.config.schema import Config, Prompt
from recaption.engine.base import Spec
from recaption.engine.devices import engine_devices, visible_gpus, worker_count
from recaption.errors import TaskError
from recaption.launch.freeze import freeze
from recaption.launch.plan import inputs
from recaption.model.files import model_folder
from recaption.pipeline.engines import Death
from recaption.pipeline.loop import Pipeline
from recaption.pipeline.publisher import Finished
from recaption.pipeline.work import OpenShard, Work
from recaption.prepare import children
from recaption.run.journal import Journal
from recaption.run.record import InputShard, Run, plain_config
from recaption.shard.index import index_shard
from recaption.task.attempt import make_context

REPLAYED = 64  # different inputs that are replayed per engine
WARM = 256  # images per engine before the clock starts
PATIENCE = 1800.0
Replayed = tuple[float, list[float], int]  # start, when each image was done, tokens


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

    def states(self, besides: Collection[str]) -> Counter[str]:
        return Counter()


class Ours:
    """A task as a run would start it, with ready engines; measures the engines, then the pipeline."""

    def __init__(self, config: Config, prompts: list[Prompt], folder: Path) -> None:
        config.output.dir = str(folder)
        self.config, self.folder = config, folder
        self.paths, self.run = freeze(config, prompts, inputs(config))
        self.spec = spec = _spec_of(config, self.run)
        self.devices = engine_devices(config, visible_gpus())
        self.workers = worker_count(config, len(self.devices))
        self.source = AllShards(self.run)
        began = time.monotonic()
        self.pipeline = Pipeline(
            spec,
            make_context(self.paths, self.run, "bench", spec),
            self.source,
            devices=self.devices,
            workers=self.workers,
            log=self.paths.logs / "engine.log",
            facts={},
        )
        try:
            self._until(lambda: all(h.ready for h in self.pipeline.engines.handles))
        except BaseException:
            self.pipeline.close()
            raise
        self.start_seconds = time.monotonic() - began
        self.device = self.pipeline.engines.facts().get("gpu", "")
        self.warm = False

    def __enter__(self) -> Ours:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.close()

    def measure_engines(self, images: int, *, seeded: bool = True) -> Measured:
        """Measure the engines on prepared inputs, with a full window of them in flight.

        The run's seeds, if it has any, are used unless `seeded` is false.
        """
        handles = self.pipeline.engines.handles
        share = max(1, images // len(handles))
        results = self._replayed((WARM, share) if not self.warm else (share,), seeded)
        times = [moment for _, ends, _ in results for moment in ends]
        seconds = max(times) - min(started for started, _, _ in results)
        tokens = sum(count for _, _, count in results)
        return Measured(len(times), seconds, tokens, {}, middle_rate(times))

    def _replayed(self, counts: Sequence[int], seeded: bool) -> list[Replayed]:
        """Each engine's results of the last of several replays; the earlier ones warm it up."""
        works = self._prepared()
        places = [(cast(int, w.offset), w.length) for w in works]
        handles = self.pipeline.engines.handles
        results: list[Replayed] = []
        for count in counts:
            results = []
            for handle in handles:
                handle.connection.send(("replay", places, count, seeded))
            self._until(lambda: len(results) == len(handles), results)  # noqa: B023 - ends in here
        for work in works:
            self.pipeline.preparation.release(work)
        works[0].shard.journal.path.unlink()
        self.warm = True
        return results

    def measure_pipeline(self) -> Measured:
        """All shards, from tar to published tar."""
        pipeline = self.pipeline
        if not self.warm:
            self._replayed((WARM,), seeded=False)
        seen: list[_Seen] = []

        def look(pipeline: Pipeline) -> None:
            seen.append(_Seen(time.monotonic(), pipeline.captioned, pipeline.starved_seconds))

        pipeline.running_seconds = pipeline.starved_seconds = pipeline.ending_seconds = 0.0
        with Watch(self._roles) as watch:
            began = pipeline.observed = time.monotonic()
            pipeline.run(lambda: "", look)
        if self.source.failures:
            raise TaskError(f"bench: {self.source.failures[0]}")
        seconds = self.source.last - began
        details = {
            "engines": len(self.devices),
            "workers": self.workers,
            "start_seconds": self.start_seconds,
            "starved": pipeline.starved_seconds / pipeline.running_seconds,
            "starved_seconds": _by_quarters(seen),
            "ending_seconds": round(pipeline.ending_seconds, 2),
            "publishing_seconds": round(self.source.last - _last_caption(seen), 2),
            "cpu_ms_per_image": {
                role: round(1000 * seconds / max(1, pipeline.captioned), 3)
                for role, seconds in watch.cpu.items()
            },
            "peak_memory_mb": watch.peak >> 20,
            "growth_kb_per_image": {
                role: round(growth * seconds / max(1, pipeline.captioned) / 1024, 3)
                for role, growth in watch.growth(began).items()
            },
        }
        return Measured(
            pipeline.captioned, seconds, pipeline.tokens, details, middle_rate(_times(seen))
        )

    def _roles(self) -> dict[int, str]:
        pipeline = self.pipeline
        named: dict[int | None, str] = {os.getpid(): "task"}
        named |= {h.process.pid: "engine" for h in pipeline.engines.handles}
        named |= {w.process.pid: "worker" for w in pipeline.preparation.pool.workers}
        named |= {w.process.pid: "publisher" for w in pipeline.open_shards.pool.workers}
        return {pid: name for pid, name in named.items() if pid is not None}

    def _prepared(self) -> list[Work]:
        """Prepared samples of the first shard, in shared memory, once every worker has made some."""
        shard = self.run.shards[0]
        with open(shard.url, "rb") as file:
            samples = index_shard(file).samples[:REPLAYED]
        journal = Journal(self.paths.journal(shard.name, "replay"), {})
        opened = OpenShard(-1, shard, 0, shard.url, "", samples, iter(()), journal, 0)
        numbers = itertools.count()
        fresh = (Work(-1 - n, opened, n % len(samples)) for n in numbers)
        works: list[Work] = []
        warm: set[children.Worker] = set()
        preparation = self.pipeline.preparation
        workers = preparation.pool.workers
        deadline = time.monotonic() + PATIENCE
        while (cold := len(works) < len(samples) or not warm.issuperset(workers)) or any(
            worker.jobs for worker in workers
        ):
            if time.monotonic() > deadline:
                raise TaskError("bench: preparation does not end")
            if cold:
                preparation.fill(lambda: next(fresh))
            connections = preparation.connections()
            for readable in wait(list(connections), 1.0):
                worker = connections[cast(Connection, readable)]
                warm |= {worker} if worker.ready else set()
                for work in preparation.receive(worker):
                    raise TaskError(f"bench: {work.sample.key}: {work.reason}")
            while preparation.ready:
                work = preparation.ready.popleft()
                if len(works) < len(samples):
                    works.append(work)
                else:
                    preparation.release(work)
        preparation.retry_queue.clear()
        return works

    def _until(self, reached: Callable[[], bool], results: list[Replayed] | None = None) -> None:
        """Handle engines' messages until `reached()`."""
        engines = self.pipeline.engines
        deadline = time.monotonic() + PATIENCE
        while not reached():
            connections = engines.connections()
            for readable in wait(list(connections), 1.0):
                messages = engines.receive(connections[cast(Connection, readable)])
                if isinstance(messages, Death):
                    raise TaskError(f"bench: an engine died: {messages.reason}; see {engines.log}")
                if results is not None:
                    results += [(m[1], m[2], m[3]) for m in messages if m[0] == "replayed"]
            if time.monotonic() > deadline:
                raise TaskError("bench: an engine does not answer")


@dataclass(frozen=True)
class _Seen:
    """The pipeline at one moment: pictures captioned, seconds starved until then."""

    moment: float
    captioned: int
    starved: float


def _times(seen: Sequence[_Seen]) -> list[float]:
    """When each image was done, from counts that were taken now and then."""
    times: list[float] = []
    for look in seen:
        times += [look.moment] * (look.captioned - len(times))
    return times


def _last_caption(seen: Sequence[_Seen]) -> float:
    return next(look.moment for look in seen if look.captioned == seen[-1].captioned)


def _by_quarters(seen: Sequence[_Seen]) -> dict[str, float]:
    """Seconds starved while the first and last quarter of the images were made, and between."""
    images = seen[-1].captioned
    at = [next(s.starved for s in seen if 4 * s.captioned >= n * images) for n in (1, 3)]
    ends = [0.0, *at, seen[-1].starved]
    names = ("first quarter", "middle half", "last quarter")
    spent = (round(after - before, 2) for before, after in itertools.pairwise(ends))
    return dict(zip(names, spent, strict=True))


def _spec_of(config: Config, run: Run) -> Spec:
    path = run.model["path"]
    folder = str(model_folder(path)) if path else None
    return Spec(typed_config(plain_config(config)), tuple(run.prompts), folder)
