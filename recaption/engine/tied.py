"""Ties the process that imports it to a task; a forkserver imports it first.

A forkserver notices its parent's end only after its imports, and vLLM's take many seconds.
"""

import os

from recaption.engine.parent_death import TASK, die_with_task

if TASK in os.environ:
    die_with_task()
    os.environ[TASK] = str(os.getpid())
