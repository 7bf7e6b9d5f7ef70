"""Files that others replace and remove: what a look at one takes for gone, and what for passing."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import recaption
from recaption.run import shared
from recaption.run.journal import Journal, read_history
from recaption.run.paths import RunPaths
from recaption.task.leases import Lease, Leases

PACKAGE = Path(recaption.__file__).parent
DIRECT = re.compile(
    r"\.(read_bytes|read_text|unlink|is_file|is_dir|iterdir|glob|rglob)\(|os\.(listdir|scandir)\(|"
    r"\bpaths\.\w+(\([^()]*\))?\.(exists|stat|open)\(|(?<!os\.)\b(marker|sidecar|path)\.(exists|stat)\("
)
LOCAL = {
    "liveness.py",
    "chat_template.py",
    "publish.py",
    "shared.py",
}  # nobody replaces what they read


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "PAUSES", (0.0, 0.0))


def failing(code: int, times: int) -> Callable[[], str]:
    """Fails so many times, then says `fine`."""
    left = [times]

    def look() -> str:
        if left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return "fine"

    return look


@pytest.mark.parametrize("name", ["ESTALE", "EIO", "EINTR", "ETIMEDOUT", "EREMOTEIO"])
def test_what_fails_in_passing_is_tried_again(name: str) -> None:
    code = getattr(errno, name)
    assert shared.patiently(failing(code, 2)) == "fine"
    with pytest.raises(OSError, match=r".") as caught:
        shared.patiently(failing(code, 3))
    assert caught.value.errno == (errno.ENOENT if name == "ESTALE" else code)


def test_other_errors_show_at_once() -> None:
    with pytest.raises(PermissionError):
        shared.patiently(failing(errno.EACCES, 1))


def test_a_lease_that_stays_stale_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = RunPaths(tmp_path)
    paths.leases.mkdir(parents=True)
    paths.temporaries.mkdir()
    leases = Leases(paths, "0-0-0-a", 60.0)
    leases.write("0.tar", begun=True)
    assert isinstance(leases.read("0.tar"), Lease)

    def stale(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr(Path, "read_bytes", stale)
    assert leases.read("0.tar") is None


def test_a_journal_that_another_task_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "a.zst", {"fingerprint": "f", "digest": "d", "attempt": "a"})
    journal.add({"i": 0, "status": "captioned"})
    journal.flush()
    journal.add({"i": 1, "status": "captioned"})

    def stale(fd: int, content: bytes) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", stale)
        journal.flush()
    journal.close()
    assert list(read_history([journal.path], "f", "d").final) == [0]


def test_no_look_at_a_run_goes_round_the_helper() -> None:
    """Modules that read what other tasks write, line by line."""
    folders = ("task", "run", "cli", "pipeline", "status", "verify")
    modules = [path for folder in folders for path in (PACKAGE / folder).glob("*.py")]
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in modules
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if DIRECT.search(line) and "/proc" not in line and path.name not in LOCAL
    ]
    assert not found, "\n".join(found)
