"""Some of these tests on a real network file system, with a client of its own for each node.

RECAPTION_TEST_SHARED=gluster has all of them work on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm.conftest import ShardMaker, mounted, shard_maker, up
from slurm.lab import Lab
from slurm.test_doctor import test_a_fit_site  # noqa: F401
from slurm.test_mishaps import test_requeue_signal_kill_and_lost_node  # noqa: F401
from volume import Volume


@pytest.fixture(scope="session")
def volume() -> Iterator[Volume]:
    with mounted() as made:
        yield made


@pytest.fixture(scope="session")
def make_folder(volume: Volume) -> Callable[[str], Path]:
    return volume.folder


@pytest.fixture(scope="session")
def session_lab(volume: Volume) -> Iterator[Lab]:
    with up(volume) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def make_shards(make_folder: Callable[[str], Path]) -> ShardMaker:
    return shard_maker(make_folder)
