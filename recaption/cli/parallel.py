"""Runs a job on each of many shards, in several processes if there are enough shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
PROCESSES = 8
FEW = 4  # items up to which no processes are started


def each(
    job: Callable[[T], R], items: Sequence[T], *, few: int = FEW, chunk: int = 1
) -> Iterator[R]:
    """The job's result for every item, in order; a process gets `chunk` items at a time.

    The job, with all its data, is sent to each process only once.
    """
    processes = min(PROCESSES, len(os.sched_getaffinity(0)))
    if len(items) <= few or processes == 1:
        yield from map(job, items)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _take, (job,)) as pool:
        yield from pool.map(_do, items, chunksize=chunk)


_job: Callable[[Any], Any] | None = None  # of a process that `each` started


def _take(job: Callable[[Any], Any]) -> None:
    global _job
    _job = job


def _do(item: Any) -> Any:
    assert _job is not None
    return _job(item)
