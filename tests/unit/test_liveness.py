"""Whether a process is gone, and what leases make of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recaption.run import liveness
from recaption.run.liveness import Process, is_gone, this_process
from recaption.run.paths import RunPaths
from recaption.task.leases import Leases

SAY = "from recaption.run.liveness import *; import sys; print(vars(this_process())); input()"


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], Process]]:
    """Another process of this machine, at work."""
    command = [sys.executable, "-c", SAY]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as popen:
        assert popen.stdout is not None
        yield popen, Process(**eval(popen.stdout.readline()))
        popen.kill()


def test_a_living_process_and_a_killed_one(other: tuple[subprocess.Popen[str], Process]) -> None:
    popen, they = other
    us = this_process()
    assert us is not None
    assert us.pid == os.getpid()
    assert they.pid == popen.pid
    assert not is_gone(us)
    assert not is_gone(they)
    popen.kill()
    os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert is_gone(they)
    popen.wait()
    assert is_gone(they)


def test_a_later_process_of_the_same_number(other: tuple[subprocess.Popen[str], Process]) -> None:
    assert is_gone(replace(other[1], start="1"))


@pytest.mark.parametrize("change", [{"host": "x"}, {"boot": "x"}, {"namespace": "pid:[1]"}])
def test_nothing_is_known_elsewhere(
    other: tuple[subprocess.Popen[str], Process], change: dict[str, str]
) -> None:
    popen, they = other
    popen.kill()
    popen.wait()
    assert is_gone(they)
    assert not is_gone(replace(they, **change))  # type: ignore[arg-type]


def test_another_container_has_another_namespace() -> None:
    """Where this user may make one: there, our own number is somebody else's."""
    us = this_process()
    code = f"import sys; sys.path.insert(0, {str(Path(liveness.__file__).parents[2])!r}); {SAY}"
    command = ["unshare", "--user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    made = subprocess.run(command, input="\n", capture_output=True, text=True, check=False)
    if made.returncode == 0:
        they = Process(**eval(made.stdout))
        assert us is not None
        assert they.boot == us.boot
        assert they.namespace != us.namespace
        assert not is_gone(they)
    else:
        assert "unshare" in made.stderr


def test_leases_of_the_dead_are_free_at_once(
    other: tuple[subprocess.Popen[str], Process], tmp_path: Path
) -> None:
    popen, they = other
    paths = RunPaths(tmp_path)
    for folder in paths.folders():
        folder.mkdir()
    holder, reader = (Leases(paths, f"{n}-0-0-x", 60.0) for n in (0, 1))
    holder.process = they
    assert holder.create("a.tar", begun=True)
    lease = reader.read("a.tar")
    assert lease is not None
    assert not reader.is_dead("a.tar", lease)
    popen.kill()
    popen.wait()
    assert reader.is_dead("a.tar", lease)
    record = json.loads(paths.lease("a.tar").read_bytes())
    paths.lease("a.tar").write_text(json.dumps({**record, "process": None}))
    unknown = reader.read("a.tar")
    assert unknown is not None
    assert not reader.is_dead("a.tar", unknown)
