"""The pool of preparation workers, and the shared memory that bounds what they prepare."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any

from recaption.engine.base import Spec
from recaption.engine.devices import cpus
from recaption.errors import TaskError
from recaption.pipeline.prompt_stages import stages_of
from recaption.pipeline.shared_memory import SharedMemory
from recaption.pipeline.work import Work
from recaption.prepare import children, worker
from recaption.prepare.worker import Descriptor, Prepared
from recaption.run.columns import SCORE
from recaption.run.rows import REJECTED

CHUNK = 4  # samples per message to a worker
LEARN = 32  # results after which sizes seen replace the worst case as the guess of a payload's size
MARGIN = 1.1
ODD_AT_START = 8  # failures that are no sample's fault, before any success, that end the task
FIXED_BYTES = 1 << 18
BYTES_PER_PIXEL = 15  # three float32 channels, and a quarter more for the padding of patches


class Preparation:
    """Prepares works in a pool of worker processes; ready ones wait in `ready` or `suspects`."""

    def __init__(self, spec: Spec, workers: int) -> None:
        self.stages = stages_of(spec.prompts)
        self.memory = SharedMemory(spec.config.data.buffer_mb << 20)
        per_prompt = FIXED_BYTES + BYTES_PER_PIXEL * spec.config.model.max_pixels
        self.guess = min(per_prompt * len(spec.prompts), self.memory.size // 2)
        self.largest = self.results = self.odd = 0
        self.succeeded = False
        seconds = spec.config.image.decode_seconds
        threads = max(1, (cpus() - 1) // workers)  # per worker, for its ONNX models
        self.pool = children.Pool(worker.main, (spec, self.memory.path, threads), workers, seconds)
        self.retry_queue: deque[Work] = deque()  # to be prepared before any fresh work
        self.ready: deque[Work] = deque()
        self.suspects: deque[Work] = deque()  # ready, with strikes

    def connections(self) -> dict[Connection, children.Worker]:
        return self.pool.connections()

    def waiting(self) -> int:
        return len(self.retry_queue) + len(self.ready)

    def idle(self) -> bool:
        """Whether nothing is being prepared or waits for preparation or for an engine."""
        busy = any(self.pool.at_work())
        return not (busy or self.retry_queue or self.ready or self.suspects)

    def count_suspects(self) -> int:
        """Samples with strikes that are being prepared, or wait for it or for an engine."""
        chunks = chain([self.retry_queue, self.suspects], self.pool.at_work())
        return sum(work.strikes > 0 for chunk in chunks for work in chunk)

    def fill(self, fresh: Callable[[], Work | None]) -> None:
        """Keep every worker busy while there is work and room."""
        while self.pool.vacancies() > 0:
            chunk: list[Work] = []
            while len(chunk) < CHUNK:
                work = self._next(fresh)
                if work is None:
                    break
                if (chunk and work.alone) or not self._allot(work):
                    self.retry_queue.appendleft(work)
                    break
                chunk.append(work)
                if work.alone:
                    break
            if not chunk:
                return
            self.pool.submit([self._descriptor(w) for w in chunk], chunk)

    def receive(self, handle: children.Worker) -> list[Work]:
        """Handle a worker's next message; returns works that are settled without a caption."""
        outcome = self.pool.receive(handle)
        return [] if outcome is None else self._outcome(*outcome)

    def expire(self) -> list[Work]:
        """As receive, for workers that took too long and were killed."""
        return [work for outcome in self.pool.expire() for work in self._outcome(*outcome)]

    def release(self, work: Work) -> None:
        """Free a payload's memory: the engine has a copy, or nobody needs it any more."""
        if work.offset is not None:
            self.memory.release(work.offset)
            work.offset, work.length = None, 0

    def close(self) -> None:
        self.pool.close()
        self.memory.close()

    def _next(self, fresh: Callable[[], Work | None]) -> Work | None:
        """The next work to prepare: suspects, then retries, then fresh ones.

        Suspects come first because ready samples, and the memory that they hold, wait for them.
        """
        suspect = next((work for work in self.retry_queue if work.strikes), None)
        if suspect is not None:
            self.retry_queue.remove(suspect)
            return suspect
        return self.retry_queue.popleft() if self.retry_queue else fresh()

    def _outcome(self, chunk: list[Work], result: Any) -> list[Work]:
        if isinstance(result, children.Crashed):
            return self._crashed(chunk, result.reason)
        settled = []
        for work, prepared in zip(chunk, result, strict=True):
            if self._prepared(work, prepared):
                settled.append(work)
        return settled

    def _prepared(self, work: Work, prepared: Prepared) -> bool:
        work.facts.update(prepared.facts)
        self.results += 1
        if prepared.odd and not self.succeeded:
            self.odd += 1
            if self.odd > ODD_AT_START:
                raise TaskError(
                    f"{socket.gethostname()}: no sample can be prepared: {prepared.reason}"
                )
            self.release(work)
            self.retry_queue.append(work)
            return False
        if prepared.status:
            self.release(work)
            work.status, work.reason = prepared.status, prepared.reason
            return True
        size = prepared.needs or prepared.length
        self.largest = max(self.largest, size)
        if prepared.needs or self.results > LEARN:
            self.guess = int(self.largest * MARGIN)
        if prepared.needs:
            self.release(work)
            self.retry_queue.appendleft(work)
            return False
        assert work.offset is not None
        self.succeeded = True
        self.memory.shrink(work.offset, prepared.length)
        work.length, work.cut = prepared.length, prepared.cut
        (self.suspects if work.strikes else self.ready).append(work)
        return False

    def _crashed(self, chunk: list[Work], reason: str) -> list[Work]:
        for work in chunk:
            self.release(work)
        if len(chunk) == 1 and chunk[0].alone:
            chunk[0].status, chunk[0].reason = REJECTED, f"image could not be prepared: {reason}"
            return chunk
        for work in reversed(chunk):
            work.alone = True
            self.retry_queue.appendleft(work)
        return []

    def _allot(self, work: Work) -> bool:
        if self.guess > self.memory.size:
            raise TaskError(
                f"data.buffer_mb={self.memory.size >> 20}: one prepared picture needs "
                f"{(self.guess >> 20) + 1} MB"
            )
        work.offset = self.memory.allot(self.guess)
        while work.offset is None and work.strikes and self.ready:
            # ready samples wait for suspects, so they give up their memory
            fresh = self.ready.pop()
            self.release(fresh)
            self.retry_queue.append(fresh)
            work.offset = self.memory.allot(self.guess)
        work.length = self.guess
        return work.offset is not None

    def _descriptor(self, work: Work) -> Descriptor:
        assert work.offset is not None
        shard = work.shard
        return Descriptor(
            number=work.number,
            shard=shard.number,
            path=shard.path,
            sample=work.sample,
            picture=f"{shard.shard.name}/{work.sample.key}",
            prompts=work.asking or self.stages[work.stage],
            offset=work.offset,
            size=work.length,
            captions={name: caption.text for name, caption in work.captions.items()},
            attempt=work.retries,
            temperature=work.temperature,
            scored=any(name.endswith(SCORE) for name in work.facts),
        )
