"""The pool of child processes."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection, wait

import pytest

from recaption.errors import TaskError
from recaption.pipeline.children import Pool


def dies(connection: Connection) -> None:
    """Ends at once, what was sent to it unread: that resets the sender's connection."""
    os._exit(3)


def test_workers_that_die_at_once_end_the_task_with_their_exit_code() -> None:
    pool = Pool(dies, (), 2, 10.0)
    try:
        with pytest.raises(TaskError, match=r"worker died \(exit code 3\), again and again"):
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                if pool.vacancies():
                    pool.submit("job", "tag")
                for readable in wait(list(pool.connections()), 1.0):
                    pool.receive(pool.connections()[readable])  # type: ignore[index]
    finally:
        pool.close()
