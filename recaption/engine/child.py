"""An engine's process, which gets jobs and returns captions over a pipe; only it uses asyncio.

Messages in: ("jobs", [(id, offset, length)]), ("probe",), ("replay", [(offset, length)], count, seeded),
("stop",).
Messages out, in lists: ("ready", facts), ("taken", id), ("done", id, [Caption]),
("error", id, reason), ("alive",) while the engine generates, ("probed", refusal),
("replayed", started, times, tokens), ("fatal", reason).
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from recaption.engine import leftovers
from recaption.engine.base import Device, Spec, own_picture
from recaption.engine.factory import make_engine, make_renderer
from recaption.engine.orphan import lock_bars_by_thread
from recaption.engine.parent_death import VARIABLE, die_with_task, guard_group
from recaption.engine.payload import unpack
from recaption.errors import SampleError
from recaption.run import shared

PULSES = 4  # signs of life within engine.stall_seconds
SLOWEST_PULSE = 10.0  # seconds between signs of life, at most


def main(connection: Connection, spec: Spec, device: Device, memory: str, log: str | None) -> None:
    """Entry point of the child process; never returns."""
    os.setpgid(0, 0)
    name = leftovers.own_name()
    guard_group(lambda: leftovers.remove(name))
    multiprocessing.current_process().daemon = False  # vLLM starts processes of its own
    die_with_task()
    os.environ[VARIABLE] = "1"
    lock_bars_by_thread()
    if log:
        fd = shared.appended(Path(log))
        os.dup2(fd, 1)
        os.dup2(fd, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = 0
    try:
        asyncio.run(_Server(connection, spec, device, memory).run())
    except BaseException as e:  # noqa: BLE001 - reported to the task, which counts it as a death
        traceback.print_exc()
        code = 1
        _last_words(connection, ("fatal", f"{type(e).__name__}: {e}"))
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os.killpg(0, signal.SIGKILL)  # vLLM's processes, and this one
    os._exit(code)


def _last_words(connection: Connection, message: tuple[Any, ...]) -> None:
    try:
        connection.send([message])
    except OSError:
        return  # the task is gone


class _Server:
    def __init__(self, connection: Connection, spec: Spec, device: Device, memory: str) -> None:
        self.connection, self.spec = connection, spec
        self.engine = make_engine(spec, device)
        with open(memory, "r+b") as file:
            self.region = memoryview(mmap.mmap(file.fileno(), 0))
        settings = spec.config.engine
        self.window = settings.max_num_seqs + settings.waiting
        self.pulse = min(SLOWEST_PULSE, settings.stall_seconds / PULSES)
        self.tasks: set[asyncio.Task[None]] = set()
        self.unsaid: list[tuple[Any, ...]] = []
        self.replays = itertools.count()

    async def run(self) -> None:
        facts = await self.engine.start()
        self.loop = asyncio.get_running_loop()
        self.inbox: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._say("ready", facts)
        pulse = asyncio.create_task(self._pulse())
        while (message := await self.inbox.get())[0] != "stop":
            if message[0] == "jobs":
                for job in message[1]:
                    self._begin(self._job(*job))
            elif message[0] == "probe":
                self._begin(self._probe())
            else:
                self._begin(self._replay(*message[1:]))
        pulse.cancel()
        self._flush()
        await self.engine.stop()

    async def _pulse(self) -> None:
        """Report now and then that the engine generates, since a long answer takes minutes."""
        seen = self.engine.steps()
        while True:
            await asyncio.sleep(self.pulse)
            before, seen = seen, self.engine.steps()
            if seen != before:
                self._say("alive")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._finished)

    def _say(self, *message: Any) -> None:
        """Queue a message; all messages queued in one turn of the event loop are sent together."""
        if not self.unsaid:
            self.loop.call_soon(self._flush)
        self.unsaid.append(message)

    def _flush(self) -> None:
        if self.unsaid:
            self.connection.send(self.unsaid)
            self.unsaid = []

    def _listen(self) -> None:
        while True:
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                os.killpg(0, signal.SIGKILL)
            self.loop.call_soon_threadsafe(self.inbox.put_nowait, message)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._flush()
            _last_words(self.connection, ("fatal", f"{type(error).__name__}: {error}"))
            os.killpg(0, signal.SIGKILL)

    async def _job(self, number: int, offset: int, length: int) -> None:
        payload = unpack(self.region[offset : offset + length])
        self._say("taken", number)
        try:
            captions = await self.engine.generate(payload, str(number))
        except SampleError as e:  # anything else is the engine's end
            self._say("error", number, str(e))
            return
        self._say("done", number, captions)

    async def _probe(self) -> None:
        """Caption the built-in picture: if the engine dies of it, no sample is to blame."""
        refusal = ""
        try:
            payload = own_picture(make_renderer(self.spec), self.spec.prompts)
            await self.engine.generate(payload, "probe")
        except (ValueError, SampleError) as e:  # it counts as an answer, since the engine is alive
            refusal = str(e)
        self._say("probed", refusal)

    async def _replay(self, places: list[tuple[int, int]], count: int, seeded: bool) -> None:
        """Measure the engine alone, with `count` requests over inputs that are prepared already.

        Each request counts as a new picture, so that the engine's caches do not answer it.
        """
        payloads = [unpack(self.region[offset : offset + length]) for offset, length in places]
        numbers = iter(range(count))
        tokens = 0
        times: list[float] = []

        async def lane() -> None:
            nonlocal tokens
            for n in numbers:
                again, number = payloads[n % len(payloads)], next(self.replays)
                payload = self.engine.as_another(again, f"replay/{number}", seeded)
                captions = await self.engine.generate(payload, f"replay-{number}")
                tokens += sum(caption.tokens for caption in captions)
                times.append(time.monotonic())

        started = time.monotonic()
        await asyncio.gather(*(lane() for _ in range(self.window)))
        self._say("replayed", started, times, tokens)
