"""Tests here run on a private, real Slurm; where none can be had they skip and say why."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from brought_up import Unavailable
from drawing import write_shards
from helpers import captions, launched
from slurm.lab import Lab
from volume import Volume

HERE = Path(__file__).parent
NODES = 5
LabMaker = Callable[..., Lab]


@dataclass(frozen=True)
class Shards:
    """Shards of small drawn pictures, and their captions in an undisturbed run."""

    folder: Path
    names: list[str]
    captions: dict[str, str]

    def words(self, first: int = 0, last: int | None = None) -> str:
        """The launcher's word for these shards, or some of them."""
        chosen = self.names[first : None if last is None else last + 1]
        return f"data.shards=[{','.join(str(self.folder / name) for name in chosen)}]"


ShardMaker = Callable[[int, int], Shards]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
    items.sort(
        key=lambda item: item.path != HERE / "test_time_limit.py"
    )  # first: others run while it waits


def up(volume: Volume | None, **settings: int | str) -> Lab:
    """A cluster whose nodes share the machine's own files, or a network file system."""
    shared = {} if volume is None else {"shared": str(volume.directory)}
    try:
        return Lab.up(**shared, **settings)
    except Unavailable as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def mounted() -> Iterator[Volume]:
    """A network file system for as many nodes as a cluster has here at most."""
    try:
        made = Volume.up(NODES)
    except Unavailable as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.fixture(scope="session")
def volume() -> Iterator[Volume | None]:
    """The network file system that all tests here work on if RECAPTION_TEST_SHARED=gluster."""
    if os.environ.get("RECAPTION_TEST_SHARED") != "gluster":
        yield None
        return
    with mounted() as made:
        yield made


@pytest.fixture(scope="session")
def make_folder(
    volume: Volume | None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Makes a folder that the nodes see, under a name that is new."""
    return tmp_path_factory.mktemp if volume is None else volume.folder


@pytest.fixture
def tmp_path(make_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Path:
    return make_folder(re.sub(r"\W", "_", request.node.name)[:30])


@pytest.fixture(scope="session")
def session_lab(volume: Volume | None) -> Iterator[Lab]:
    with up(volume) as cluster:
        yield cluster


@pytest.fixture
def lab(session_lab: Lab) -> Iterator[Lab]:
    """The session's cluster, with an empty queue before and after each test."""
    _clear(session_lab)
    yield session_lab
    _clear(session_lab)


@pytest.fixture
def make_lab(volume: Volume | None) -> Iterator[LabMaker]:
    """Starts a further cluster with settings of its own, such as max_array=11 or accounting=1."""
    started: list[Lab] = []

    def make(**settings: int | str) -> Lab:
        started.append(up(volume, **settings))
        return started[-1]

    yield make
    for cluster in started:
        cluster.down()


@pytest.fixture(scope="session")
def make_shards(make_folder: Callable[[str], Path]) -> ShardMaker:
    """Draws so many shards of so many samples, once a session."""
    return shard_maker(make_folder)


def shard_maker(make_folder: Callable[[str], Path]) -> ShardMaker:
    made: dict[tuple[int, int], Shards] = {}

    def make(count: int, samples: int) -> Shards:
        if (count, samples) not in made:
            folder = make_folder("shards")
            names = list(write_shards(folder, count, samples, side=96, plain=True))
            undisturbed = make_folder("undisturbed")
            words = [f"data.shards={folder}/*.tar", "engine=fake", "output.dir=run"]
            launched(*words, cwd=undisturbed)
            expected = captions(undisturbed / "run")
            assert len(set(expected.values())) == count * samples
            made[count, samples] = Shards(folder, names, expected)
        return made[count, samples]

    return make


def _clear(cluster: Lab) -> None:
    if not cluster.queue_empty():
        cluster.scancel("--quiet", "--user=root")
        cluster.wait_until(cluster.queue_empty, 30, "the queue to empty")
    cluster.kill_orphans()
    for name, state in cluster.sinfo().items():
        if state.startswith("down") or state.endswith("*"):
            cluster.revive_node(name)
