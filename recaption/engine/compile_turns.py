"""Engines of one node compile in turn: the first one does, the others wait for it and load.

vLLM's own processes import this, so that it imports next to nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = "RECAPTION_COMPILED"  # in the processes of an engine that may compile
PATIENCE = "RECAPTION_COMPILE_WAIT"
STEP = 0.2  # seconds


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Around compilation: an engine's turn, or what another one has compiled, or the end of patience."""
    folder, patience = Path(os.environ[FOLDER]), float(os.environ[PATIENCE])
    began = time.monotonic()
    while not ready(folder).exists():
        with locked(folder) as ours:
            waited = time.monotonic() - began
            if ours or waited > patience:
                if not ours:
                    say(f"another engine compiles for more than {patience:g} s: so does this one")
                yield
                ready(folder).touch()
                return
        time.sleep(STEP)
    say(f"compiled code is there; waited {time.monotonic() - began:.1f} s")
    yield


def take_turns() -> None:
    """Have the core of an engine compile in its turn, if it is a process of such an engine."""
    if os.environ.get(FOLDER):
        from vllm.v1.executor.abstract import Executor

        compiling = Executor.determine_available_memory  # its first step compiles

        def in_turn(executor: Executor) -> list[int]:
            with turn():
                memory: list[int] = compiling(executor)
            return memory

        Executor.determine_available_memory = in_turn


def ready(folder: Path) -> Path:
    return folder / "ready"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether the folder's lock is ours for the time; the kernel frees that of a killed process."""
    with (folder / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            try:
                yield True
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a child that it forked may have the file open


def say(text: str) -> None:
    print(f"recaption: {text}", flush=True)
