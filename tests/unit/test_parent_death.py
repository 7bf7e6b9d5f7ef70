"""Children of a task that is killed at the moment they start."""

from __future__ import annotations

import subprocess
import sys

# Holds the task's end of its own pipe, too, so that the pipe does not tell it of the task's end.
LATE = """
import multiprocessing
import os
import time

from recaption.engine.parent_death import TASK
from recaption.pipeline import publisher

task = os.getpid()
os.environ[TASK] = str(task)
ours, theirs = multiprocessing.Pipe()
if os.fork():
    os._exit(0)
while os.getppid() == task:
    time.sleep(0.001)
publisher.main(theirs, None)
"""


def test_a_child_whose_task_is_gone_before_it_could_tie_itself_ends() -> None:
    """Its output ends with it."""
    subprocess.run([sys.executable, "-c", LATE], capture_output=True, timeout=20, check=True)
