"""Makes sure that no process of a task outlives its parent, however the parent ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
TIDY_SECONDS = 20
VARIABLE = "RECAPTION_DIE_WITH_PARENT"
TASK = "RECAPTION_TASK_PID"  # the task's pid; in the forkserver's children, the forkserver's


def die_with_parent(parent: int | None = None, number: int = signal.SIGKILL) -> None:
    """Have the kernel send `number` to this process when its parent ends (prctl(2)).

    `parent` is the expected parent's pid: if it is gone already, the process ends here.
    """
    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def die_with_task() -> None:
    """The same for a task's forkserver and its children, by the pid in `TASK`.

    It also works if the parent ended between the fork and this call.
    """
    die_with_parent(int(os.environ[TASK]))


def guard_group(tidy: Callable[[], None]) -> None:
    """Fork a process that kills this one's process group and cleans up once this one is gone.

    vLLM's own processes call `register` only after many seconds of imports. The guard leaves the group
    before it kills it, so that it outlives those whose leftovers it removes.
    """
    group = os.getpgrp()
    ours, theirs = os.pipe()
    if os.fork():
        os.close(ours)
        return  # the other end stays open as long as this process exists
    try:
        os.close(theirs)
        os.read(ours, 1)
        os.setpgid(0, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        signal.alarm(TIDY_SECONDS)  # it holds the pipe by whose end the task sees the engine's
        tidy()
    finally:
        os._exit(0)
