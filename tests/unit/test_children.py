"""The pool of child processes."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection, wait

import pytest

from recaption.errors import TaskError
from recaption.prepare.children import Pool


def dies(connection: Connection) -> None:
    """Ends at once, what was sent to it unread: that resets the sender's connection."""
    os._exit(3)


def test_workers_that_die_at_once_end_the_task_with_their_exit_code() -> None:
    pool = Pool(dies, (), 1, 10.0)
    try:
        with pytest.raises(TaskError, match=r"worker died \(exit code 3\), again and again"):
            use(pool)
    finally:
        pool.close()


def use(pool: Pool) -> None:
    """Send to workers before and after they died, and hear of it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (worker,) = pool.workers
        while pool.vacancies():
            pool.submit("job", "tag")
            worker.process.join()
        wait([worker.connection])
        pool.receive(worker)
