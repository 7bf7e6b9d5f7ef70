"""Tests here run on a private, real Slurm; where none can be had they skip and say why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm.lab import Lab, LabUnavailable

HERE = Path(__file__).parent
LabMaker = Callable[..., Lab]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)


def _up(**settings: int | str) -> Lab:
    try:
        return Lab.up(**settings)
    except LabUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def session_lab() -> Iterator[Lab]:
    with _up() as cluster:
        yield cluster


@pytest.fixture
def lab(session_lab: Lab) -> Iterator[Lab]:
    """The session's cluster, with an empty queue before and after each test."""
    _clear(session_lab)
    yield session_lab
    _clear(session_lab)


@pytest.fixture
def make_lab() -> Iterator[LabMaker]:
    """Starts a further cluster with settings of its own, such as max_array=11 or accounting=1."""
    started: list[Lab] = []

    def make(**settings: int | str) -> Lab:
        started.append(_up(**settings))
        return started[-1]

    yield make
    for cluster in started:
        cluster.down()


def _clear(cluster: Lab) -> None:
    if not cluster.queue_empty():
        cluster.scancel("--quiet", "--user=root")
        cluster.wait_until(cluster.queue_empty, 30, "the queue to empty")
    cluster.kill_orphans()
    for name, state in cluster.sinfo().items():
        if state.startswith("down") or state.endswith("*"):
            cluster.revive_node(name)
