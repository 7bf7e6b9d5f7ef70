"""The task's one loop: it routes descriptors, never pixels, between workers, engines and journals."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from recaption.engine.base import Caption, Device, Spec
from recaption.engine.remote_code import own_modules
from recaption.errors import TaskError
from recaption.pipeline.alarm import Alarm
from recaption.pipeline.engines import Death, EngineHandle, Engines
from recaption.pipeline.open_shards import OpenShards, Source
from recaption.pipeline.preparation import CHUNK, Preparation
from recaption.pipeline.publisher import Context
from recaption.pipeline.quality_gate import QualityGate
from recaption.pipeline.work import Work
from recaption.prepare import children
from recaption.run.rows import CAPTIONED, FAILED, FILTERED

TRIES = 2  # of a request that the engine answers with an error
TICK = 0.25  # seconds that the loop waits for messages, at most
DRAIN, NOW = "drain", "now"


class Pipeline:
    """One task's work on the shards of its source."""

    def __init__(
        self,
        spec: Spec,
        context: Context,
        source: Source,
        *,
        devices: list[Device],
        workers: int,
        log: Path,
        facts: dict[str, Any],
    ) -> None:
        self.flush_seconds = spec.config.task.flush_seconds
        self.state = ""
        with ExitStack() as endings:
            os.environ.update(endings.enter_context(own_modules(spec)))
            children.set_up(spec)
            self.preparation = Preparation(spec, workers)
            endings.callback(self.preparation.close)
            self.engines = Engines(spec, devices, self.preparation.memory.path, log)
            endings.callback(lambda: self.engines.stop(politely=not self.state))
            self.open_shards = OpenShards(
                spec.config, context, source, lambda: facts | self.engines.facts(), len(devices)
            )
            endings.callback(self.open_shards.close)
            self.endings = endings.pop_all()
        self.gate = QualityGate(spec)
        self.alarm = Alarm(spec.config.data.alarm)
        self.low_water = 2 * (self.engines.window * len(devices) + CHUNK * workers)
        self.numbers = itertools.count()
        self.most_suspected = 0  # samples with strikes at a time, since there were none
        self.parked: list[Work] = []  # suspects that wait until more is captioned
        self.parked_at = 0
        self.counts: Counter[str] = Counter()  # samples settled, by state
        self.tokens = 0
        self.running_seconds = 0.0  # summed over engines, while they were ready
        # of these, with less than a full batch although there was more to do
        self.starved_seconds = 0.0
        # of these, with less than a full batch because there was no more to do
        self.ending_seconds = 0.0
        self.flushed = self.observed = time.monotonic()

    @property
    def captioned(self) -> int:
        return self.counts[CAPTIONED]

    @property
    def settled(self) -> int:
        return self.counts.total()

    def run(self, stopping: Callable[[], str], tick: Callable[[Pipeline], None]) -> None:
        """Work until the source is exhausted or `stopping` says DRAIN or NOW.

        `tick` is called about every TICK seconds.
        """
        try:
            while (state := stopping()) != NOW and not self._finished(state):
                self.state = state
                if not state:
                    self.open_shards.refill(self.low_water - self.preparation.waiting())
                    self.preparation.fill(self._fresh)
                    self._feed()
                self._receive()
                self._housekeeping()
                tick(self)
            self.state = state
        finally:
            self.close()

    def _finished(self, state: str) -> bool:
        if state == DRAIN:
            return not self.engines.in_flight() and not self.open_shards.finishing()
        return self.open_shards.done()

    def _fresh(self) -> Work | None:
        following = self.open_shards.next_fresh()
        if following is None:
            return None
        shard, index = following
        return Work(next(self.numbers), shard, index, strikes=shard.strikes.get(index, 0))

    def _feed(self) -> None:
        """Fill every engine's window, suspects apart from the others.

        Windows of the square root: n suspects need about √n windows, and each window that kills an
        engine leaves at most √n samples to try singly.
        """
        suspects, ready = self.preparation.suspects, self.preparation.ready
        suspected = self._suspected()
        self.most_suspected = max(self.most_suspected, suspected) if suspected else 0
        window = math.isqrt(max(0, self.most_suspected - 1)) + 1
        while suspects and (handle := self.engines.may_take_suspect(suspects[0], window)):
            self.engines.assign(handle, suspects.popleft())
        while ready and (handle := self.engines.room(suspects=suspected > 0)):
            self.engines.assign(handle, ready.popleft())
        self.engines.send()

    def _suspected(self) -> int:
        """How many samples with strikes are on their way to an engine, or in one.

        This searches all samples only if an engine died or a journal had strikes.
        """
        possible = self.engines.restarts or any(s.strikes for s in self.open_shards.open)
        if not possible:
            return 0
        return self.preparation.count_suspects() + self.engines.count_suspects()

    def _receive(self) -> None:
        publishers = self.open_shards.connections()
        workers = self.preparation.connections()
        engines = self.engines.connections()
        for readable in wait([*publishers, *workers, *engines], TICK):
            connection = cast(Connection, readable)
            if connection in engines:
                self._from_engine(engines[connection])
            elif connection in workers:
                self._settle_all(self.preparation.receive(workers[connection]))
            else:
                self.open_shards.receive(publishers[connection])

    def _from_engine(self, handle: EngineHandle) -> None:
        while True:  # read all messages that are there, without another wait()
            messages = self.engines.receive(handle)
            if isinstance(messages, Death):
                self._death(messages)
                return
            for message in messages:
                match message:
                    case ("taken", number):
                        self.preparation.release(handle.in_flight[number])
                    case ("done", number, captions):
                        self._answered(handle.in_flight.pop(number), captions)
                    case ("error", number, reason):
                        self._refused(handle.in_flight.pop(number), reason)
            if not handle.connection.poll():
                return

    def _answered(self, work: Work, captions: list[Caption]) -> None:
        work.tries += 1
        self.tokens += sum(c.tokens for c in captions)
        names = work.asking or self.preparation.stages[work.stage]
        if self.gate.asks_again(work, names, captions):
            self.preparation.retry_queue.append(work)
            return
        if work.stage + 1 < len(self.preparation.stages):
            work.stage += 1
            self.preparation.retry_queue.append(work)
            return
        work.reason = self.gate.refused(work)
        work.status = FILTERED if work.reason else CAPTIONED
        self._settle(work)

    def _refused(self, work: Work, reason: str) -> None:
        work.tries += 1
        work.errors += 1
        if work.errors < TRIES:
            self.preparation.retry_queue.append(work)
        else:
            work.status, work.reason = FAILED, f"generation failed {work.errors} times: {reason}"
            self._settle(work)

    def _death(self, death: Death) -> None:
        """Give strikes to the samples in flight, unless a stop was asked for, and prepare them again.

        A sample with a strike already that was alone in flight, in an engine that had captioned
        something, fails, if the run has more captioned than failed samples; otherwise it waits.
        """
        for work in death.in_flight:
            self.preparation.release(work)
            if self.state:
                continue
            work.strikes += 1
            alone = work.strikes > 1 and len(death.in_flight) == 1 and death.proven
            if alone and self._run_works():
                work.status, work.reason = FAILED, f"alone in an engine that died: {death.reason}"
                self._settle(work)
                continue
            work.shard.journal.add(work.event("strike"))
            if alone:
                self.parked.append(work)
                self.parked_at = self.captioned
            else:
                self.preparation.retry_queue.append(work)
        self.open_shards.flush()

    def _run_works(self) -> bool:
        """Whether the run has more captioned than failed samples."""
        seen = self.counts + self.open_shards.states()
        return seen[CAPTIONED] > seen[FAILED]

    def _unpark(self) -> None:
        """Ask parked suspects again once something was captioned, or nothing else is left."""
        idle = self.open_shards.idle() and self.preparation.idle() and not self.engines.in_flight()
        if self.parked and (idle or self.captioned > self.parked_at):
            self.preparation.retry_queue.extend(self.parked)
            self.parked.clear()

    def _settle_all(self, works: list[Work]) -> None:
        for work in works:
            self._settle(work)

    def _settle(self, work: Work) -> None:
        self.counts[work.status] += 1
        event = work.event(work.status, work.reason)
        if work.status in (CAPTIONED, FILTERED) and work.captions:
            event["captions"] = {
                name: {
                    "caption": c.text,
                    "finish_reason": c.finish_reason,
                    "tokens": c.tokens,
                    "flags": ",".join(work.flags[name]),
                }
                for name, c in work.captions.items()
            }
        asked = work.index in work.shard.asked
        if not asked and (why := self.alarm.rings(work.status, work.reason)):
            # journaled only: settled, it might be the last of its shard, which would be published
            work.shard.journal.add(event)
            raise TaskError(why)
        self.open_shards.settle(work.shard, event)

    def _housekeeping(self) -> None:
        now = time.monotonic()
        ready = [h for h in self.engines.handles if h.ready]
        full = self.engines.settings.max_num_seqs
        self.running_seconds += (now - self.observed) * len(ready)
        if short := (now - self.observed) * sum(len(h.in_flight) < full for h in ready):
            if self._all_given():
                self.ending_seconds += short
            else:
                self.starved_seconds += short
        self.observed = now
        for death in self.engines.stalled():
            self._death(death)
        self._settle_all(self.preparation.expire())
        self._unpark()
        if now - self.flushed >= self.flush_seconds:
            self.flushed = now
            self.open_shards.flush()

    def _all_given(self) -> bool:
        """Whether there is nothing left to give to engines, or a stop was asked for."""
        return bool(self.state) or (self.open_shards.exhausted() and self.preparation.idle())

    def close(self) -> None:
        """Flush the journals and end every child, whatever fails on the way.

        A child left over would ignore the TERM that multiprocessing sends at exit, and the task
        would wait for it for ever.
        """
        self.endings.close()
