"""What vLLM calls in each of its own processes: its plug-in hook.

The module's name is an installed version's entry point, and so it stays.
"""

from __future__ import annotations

import os
import threading

from recaption.engine import leftovers, padding
from recaption.engine.parent_death import VARIABLE, die_with_parent


def register() -> None:
    """vLLM's plug-in hook, run in its own processes; inert unless a task set the variable."""
    if os.environ.get(VARIABLE):
        die_with_parent()
        lock_bars_by_thread()
        leftovers.name_memory()
    if os.environ.get(padding.VARIABLE) == "1":
        from recaption.engine import padded

        padded.install()


def lock_bars_by_thread() -> None:
    """Have tqdm's bars share no semaphore with other processes.

    A process that is ended before it could give that back leaves it to the resource tracker, which
    complains of it at the end of the task's log. vLLM draws bars while it loads a model.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
