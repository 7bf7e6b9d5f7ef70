"""Ties the process that imports it to a task: a forkserver does so before anything slow.

A forkserver looks at its parent's pipe only after its imports, which are vLLM's.
"""

import os

from recaption.engine.parent_death import TASK, die_with_task

if TASK in os.environ:
    die_with_task()
    os.environ[TASK] = str(os.getpid())
