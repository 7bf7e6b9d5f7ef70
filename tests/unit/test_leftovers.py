"""What an engine leaves in shared memory and in the temporary folder goes once it is certainly gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from recaption.engine import leftovers
from recaption.engine.base import Device
from recaption.pipeline.engines import EngineHandle, Engines

LEAVING = """
import multiprocessing, sys, tempfile
from multiprocessing import shared_memory
from pathlib import Path
from recaption.engine import leftovers
leftovers.begin()
memory = shared_memory.SharedMemory(create=True, size=4096)
again = shared_memory.SharedMemory(name=memory.name)
lock = multiprocessing.get_context("spawn").Lock()
meeting = Path(tempfile.gettempdir(), sys.argv[1])
meeting.touch()
leftovers.MEMORY.joinpath(f"{meeting.name}-tp:0-[0-1]-cpushm_0").touch()
leftovers.MEMORY.joinpath(f"{meeting.name}x").touch()
print(leftovers.own_name(), flush=True)
input()
"""


@pytest.fixture
def meeting() -> Iterator[str]:
    name = f"vllm_dist_{uuid.uuid4().hex}"
    yield name
    for path in leftovers.MEMORY.glob(f"{name}*"):
        path.unlink()


def files(name: str, meeting: str) -> list[str]:
    """How the names of all that is there go on."""
    patterns = (f"{name}*", f"sem.{name}*", f"{meeting}*")
    found = [path.name for pattern in patterns for path in leftovers.MEMORY.glob(pattern)]
    return [*found, *(path.name for path in Path(tempfile.gettempdir()).glob("recaption-[0-9]*"))]


def test_a_killed_engine_leaves_nothing_behind_a_sweep(
    tmp_path: Path, meeting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with its resource tracker, as Slurm kills a job's processes; alive, it keeps all."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    engine = subprocess.Popen(
        [sys.executable, "-c", LEAVING, meeting],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert engine.stdout
    with engine:
        name = engine.stdout.readline().strip()
        assert name.startswith(f"recaption-{engine.pid}-")
        there = files(name, meeting)
        assert len(there) == 5, there  # memory, semaphore, two of a meeting's name, the folder
        leftovers.sweep()
        assert files(name, meeting) == there
        os.killpg(engine.pid, signal.SIGKILL)
    assert files(name, meeting) == there
    assert leftovers.abandoned() >= {name}
    leftovers.sweep()
    assert files(name, meeting) == [f"{meeting}x"]  # another's, by its name


ENDING = """
import os
from multiprocessing import shared_memory
from recaption.engine import leftovers
leftovers.begin()
gone, left = (shared_memory.SharedMemory(create=True, size=4096) for _ in range(2))
gone.close()
gone.unlink()
print(left.name, flush=True)
leftovers.remove(leftovers.own_name())
os._exit(0)
"""


def test_nobody_complains_of_what_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracker of resources outlives an engine that ends at once, as all do."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-c", ENDING]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.startswith("recaption-")
    assert not (leftovers.MEMORY / ended.stdout.strip()).exists()
    assert ended.stderr == ""


def test_what_may_be_somebody_elses_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's or container's engine, which cannot be seen here, and names like ours."""
    monkeypatch.setattr(leftovers, "MEMORY", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    *_, machine, boot, _ = leftovers.own_name().split("-")
    other = machine[::-1] + "x"
    gone = f"recaption-{2**22 + 1}-1-{machine}-{boot}-a"
    before_a_reboot = f"recaption-{os.getpid()}-1-{machine}-{'0' * 8}-a"
    others = {f"recaption-{2**22 + 1}-1-{other}-{boot}-a", "recaption-abc-1-x", "psm_12345678"}
    others |= {f"recaption-{2**22 + 1}-1-{'0' * 8}-{'0' * 8}-a", leftovers.own_name() + "a"}
    for name in (gone, before_a_reboot, *others):
        (tmp_path / name).touch()
    leftovers.sweep()
    assert {path.name for path in tmp_path.iterdir()} == others


def vanished(*_: object) -> NoReturn:
    raise FileNotFoundError("gone between two looks")


def test_two_tasks_sweep_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the other one removes in the middle of it ends neither."""
    monkeypatch.setattr(leftovers, "abandoned", lambda: {"recaption-1-1-aaaaaaaa-"})
    monkeypatch.setattr(leftovers, "remove", vanished)
    leftovers.sweep()


def test_every_engine_ends_whatever_happens_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "sweep", vanished)
    context = multiprocessing.get_context("spawn")
    engines = Engines.__new__(Engines)
    engines.handles = []
    for number in range(2):
        process = context.Process(target=signal.pause, daemon=True)
        process.start()
        engines.handles.append(EngineHandle(Device(number), process, context.Pipe()[0]))
    with pytest.raises(FileNotFoundError):
        engines.stop(politely=False)
    assert [h.process.exitcode for h in engines.handles] == [-signal.SIGKILL] * 2
    assert all(h.connection.closed for h in engines.handles)


BEGINNING = """
import os
from recaption.engine import leftovers
leftovers.begin()
print(os.environ.get(leftovers.COMPILED))
"""


@pytest.mark.parametrize("harm", ["", "others may write", "link"])
def test_compiled_code_lies_where_others_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv(leftovers.COMPILED, raising=False)
    folder = tmp_path / f"recaption-compiled-{os.geteuid()}"
    if harm == "link":
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "other")
    elif harm:
        folder.mkdir()
        folder.chmod(0o777)
    command = [sys.executable, "-c", BEGINNING]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == ("None" if harm else f"{folder}/torchinductor")
