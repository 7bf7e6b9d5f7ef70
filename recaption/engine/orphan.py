"""vLLM's plug-in hook, which vLLM calls in each of its own processes.

The module keeps its name because installed versions name it as their entry point.
"""

from __future__ import annotations

import os
import threading

from recaption.engine import compile_turns, encoder_width, leftovers
from recaption.engine.parent_death import VARIABLE, die_with_parent


def register() -> None:
    """vLLM's plug-in hook, run in its own processes; inert unless a task set the variable."""
    if os.environ.get(VARIABLE):
        die_with_parent()
        lock_bars_by_thread()
        leftovers.name_memory()
        compile_turns.take_turns()
    if os.environ.get(encoder_width.VARIABLE) == "1":
        from recaption.engine import widened_encoder

        widened_encoder.install()


def lock_bars_by_thread() -> None:
    """Make tqdm's bars, which vLLM draws while it loads a model, use no semaphore between processes.

    If such a process is killed, the resource tracker complains about the semaphore in the task's log.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
