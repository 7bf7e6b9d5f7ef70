"""Children of a task that is killed at the moment they start."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

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


GUARDED = """
import os
import subprocess
import sys
import time

from recaption.engine.parent_death import guard_group

def tidy():
    os.close(sys.stderr.fileno())
    if sys.argv[1] == "raises":
        raise OSError("a folder vanished")
    time.sleep(60)

os.setpgid(0, 0)
guard_group(tidy)
subprocess.Popen(["sleep", "30"], stdout=subprocess.DEVNULL)
os._exit(0)
"""


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_the_group_is_killed_whatever_becomes_of_the_clean_up(how: str) -> None:
    """What is left of it holds the pipe of errors."""
    command, began = [sys.executable, "-c", GUARDED, how], time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr
        process.stderr.read()
    assert time.monotonic() - began < 20
