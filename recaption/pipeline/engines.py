"""A task's engines: started, fed, watched, and started again when they die.

When an engine dies, every sample in flight on it gets a strike and becomes a suspect, unless the task
was asked to stop. Suspects with one strike go to one engine only, the square root of their number at a
time, and fewer after deaths in a row. Suspects with more strikes go one at a time to an engine that has
captioned something since it started (a built-in picture if nothing else), so that the death of that
engine is their fault. An engine that dies repeatedly without a caption in between is given up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from recaption.engine import child as engine_process
from recaption.engine import leftovers
from recaption.engine.base import Device, Spec
from recaption.engine.death_cause import with_cause
from recaption.errors import TaskError
from recaption.pipeline.work import Work
from recaption.prepare import children

STOP_SECONDS = 10.0


@dataclass(eq=False)
class EngineHandle:
    """The parent's side of one engine process."""

    device: Device
    process: BaseProcess
    connection: Connection
    since: float = field(default_factory=time.monotonic)  # last sign of life
    ready: bool = False
    proven: bool = False  # it has captioned something since it started
    probing: bool = False  # it is captioning the built-in picture
    in_flight: dict[int, Work] = field(default_factory=dict)
    unsent: list[Work] = field(default_factory=list)  # those in flight that it was not sent yet
    deaths: int = 0  # in a row, without a caption in between
    facts: dict[str, Any] = field(default_factory=dict)
    last_words: str = ""
    log_from: int = 0  # size of the log in bytes when it started


@dataclass(frozen=True)
class Death:
    """An engine's end: the samples in flight, the reason, and whether it had captioned something."""

    in_flight: list[Work]
    reason: str
    proven: bool


class Engines:
    """All engines of a task."""

    def __init__(self, spec: Spec, devices: list[Device], memory: str, log: Path) -> None:
        self.spec, self.memory, self.log = spec, memory, log
        self.settings = spec.config.engine
        self.window = self.settings.max_num_seqs + self.settings.waiting
        leftovers.sweep()  # of an earlier task that was killed on this machine
        self.handles = [self._start(device) for device in devices]
        self.restarts = 0
        self.wanted = len(devices)
        self.given_up: list[str] = []  # which engines, and why

    def connections(self) -> dict[Connection, EngineHandle]:
        return {h.connection: h for h in self.handles}

    def in_flight(self) -> int:
        return sum(len(h.in_flight) for h in self.handles)

    def count_suspects(self) -> int:
        """Samples with strikes that are in flight."""
        return sum(work.strikes > 0 for h in self.handles for work in h.in_flight.values())

    def facts(self) -> dict[str, Any]:
        return next((h.facts for h in self.handles if h.ready), {})

    def isolator(self) -> EngineHandle | None:
        """The engine that takes suspects: the first one that is ready."""
        return next((h for h in self.handles if h.ready), None)

    def room(self, *, suspects: bool) -> EngineHandle | None:
        """The least busy engine that may take a fresh sample now."""
        ready = [h for h in self.handles if h.ready]
        if suspects:
            ready = ready[1:]
        ready = [h for h in ready if len(h.in_flight) < self.window]
        return min(ready, key=lambda h: len(h.in_flight), default=None)

    def may_take_suspect(self, work: Work, window: int) -> EngineHandle | None:
        """The isolator, if `work` may be sent to it together with what is in flight there.

        `window` bounds how many suspects with one strike are in flight. It is halved with every
        death of the engine in a row, so that where many pictures kill, one that has no such picture
        is found before the engine is given up.
        """
        handle = self.isolator()
        if handle is None:
            return None
        in_flight = handle.in_flight.values()
        if work.strikes > 1:
            if not in_flight and not handle.proven:
                self._probe(handle)
            return handle if not in_flight and handle.proven else None
        room = max(1, window >> handle.deaths)
        crowd = len(in_flight) >= room or any(w.strikes != 1 for w in in_flight)
        return None if crowd else handle

    def assign(self, handle: EngineHandle, work: Work) -> None:
        """Give an engine a sample; send() tells it."""
        if not handle.in_flight:
            handle.since = time.monotonic()
        handle.in_flight[work.number] = work
        handle.unsent.append(work)

    def send(self) -> None:
        """Tell every engine what it was given."""
        for handle in self.handles:
            if handle.unsent:
                jobs = [(w.number, w.offset, w.length) for w in handle.unsent]
                handle.unsent = []
                with contextlib.suppress(ConnectionError):  # dead; receive() will find out
                    handle.connection.send(("jobs", jobs))

    def receive(self, handle: EngineHandle) -> list[tuple[Any, ...]] | Death:
        """The next messages of an engine whose pipe is readable; Death at its end."""
        try:
            messages: list[tuple[Any, ...]] = handle.connection.recv()
        except (EOFError, OSError):
            handle.process.join(STOP_SECONDS)
            reason = handle.last_words or _ending(handle.process.exitcode)
            return self._died(handle, with_cause(reason, self.log, handle.log_from))
        handle.since = time.monotonic()
        for message in messages:
            match message:
                case ("ready", facts):
                    handle.ready, handle.facts = True, facts
                case ("fatal", reason):
                    handle.last_words = reason
                case ("done", *_):
                    handle.deaths, handle.proven = 0, True
                case ("probed", _):
                    handle.probing, handle.proven = False, True
        return messages

    def stalled(self) -> list[Death]:
        """Kill engines that gave no sign of life for too long while they had something to do."""
        now = time.monotonic()
        deaths = []
        for handle in list(self.handles):
            limit = self.settings.stall_seconds if handle.ready else self.settings.start_seconds
            busy = handle.in_flight or handle.probing or not handle.ready
            if busy and now - handle.since > limit:
                doing = "no output" if handle.ready else "not started"
                deaths.append(self._died(handle, f"{doing} for {limit:g} s"))
        return deaths

    def stop(self, *, politely: bool) -> None:
        """End every engine with its whole process group; `politely` lets it shut down first."""
        with contextlib.ExitStack() as kills:
            for handle in self.handles:
                kills.callback(self._kill, handle)  # whatever happens to another one
            polite = [h for h in self.handles if h.ready and politely]
            for handle in polite:
                with contextlib.suppress(OSError):
                    handle.connection.send(("stop",))
            deadline = time.monotonic() + STOP_SECONDS
            for handle in polite:
                handle.process.join(max(0.0, deadline - time.monotonic()))

    def _start(self, device: Device) -> EngineHandle:
        arguments = (self.spec, device, self.memory, str(self.log))
        logged = self.log.stat().st_size if self.log.exists() else 0
        started = children.start(engine_process.main, *arguments)
        return EngineHandle(device, *started, log_from=logged)

    def _died(self, handle: EngineHandle, reason: str) -> Death:
        self._kill(handle)
        self.handles.remove(handle)
        self.restarts += 1
        deaths = handle.deaths + 1
        if deaths <= self.settings.restarts:
            fresh = self._start(handle.device)
            fresh.deaths = deaths
            self.handles.append(fresh)
            self.handles.sort(key=lambda h: h.device.number)
        else:
            self.given_up.append(
                f"engine {handle.device.number} died {deaths} times without a caption in between, "
                f"last: {reason}"
            )
            if not self.handles:
                said = "; ".join(self.given_up)
                raise TaskError(f"{socket.gethostname()}: {said} (see {self.log})")
        return Death(list(handle.in_flight.values()), reason, handle.proven)

    def _probe(self, handle: EngineHandle) -> None:
        if not handle.probing:
            handle.probing, handle.since = True, time.monotonic()
            with contextlib.suppress(ConnectionError):  # dead; receive() will find out
                handle.connection.send(("probe",))

    def _kill(self, handle: EngineHandle) -> None:
        pid = handle.process.pid
        assert pid is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        children.kill(handle.process)
        handle.connection.close()
        leftovers.sweep()


def _ending(code: int | None) -> str:
    memory = ", as where memory runs out (slurm.mem)" if code == -signal.SIGKILL else ""
    return f"exit code {code}{memory}"
