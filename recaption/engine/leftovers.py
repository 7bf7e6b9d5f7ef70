"""Removes the shared memory and temporary files that an engine's processes leave behind.

Their names begin with the identity of the engine's process, which is unique, so that later tasks can
tell whether that process is gone. vLLM names the memory that several processes share on CPUs after
their rendezvous file, which is in the engine's own temporary folder and thus has that name, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import Any

from recaption.engine.private import OUTER, private_folder
from recaption.engine.sockets import too_long
from recaption.run.liveness import Process, is_gone, this_process

MEMORY = Path("/dev/shm")
VARIABLE = "RECAPTION_ENGINE_NAME"  # in the environment of an engine's processes
SOCKETS = "VLLM_RPC_BASE_PATH"
COMPILED = "TORCHINDUCTOR_CACHE_DIR"
OURS, SEMAPHORE = "recaption-", "sem."
NAME = re.compile(rf"(?:{SEMAPHORE})?({OURS}(\d+)-(\d+)-([0-9a-f]{{8}})-([0-9a-f]{{8}})-)")
MEETING = "vllm_dist_*"  # rendezvous file of an engine's workers
PLAIN = shared_memory.SharedMemory


class NamedMemory(PLAIN):
    """Shared memory that is named after the engine that makes it.

    The resource tracker does not know of it: it would complain of what is removed by its name.
    """

    def __init__(self, name: str | None = None, create: bool = False, *args: Any, **more: Any):
        if create and name is None:
            name = os.environ[VARIABLE] + secrets.token_hex(4)
        super().__init__(name, create, *args, **more)
        if create:
            resource_tracker.unregister(f"/{self.name}", "shared_memory")

    def unlink(self) -> None:
        resource_tracker.register(f"/{self.name}", "shared_memory")  # which this takes back
        super().unlink()


def own_name() -> str:
    """The prefix of the names of what this engine process leaves; '' if /proc does not tell."""
    us = this_process()
    return f"{OURS}{us.pid}-{us.start}-{_machine(us)}-{_boot(us)}-" if us else ""


def begin() -> None:
    """Give this engine process and its children a prefix for names and a temporary folder."""
    name, outer = own_name(), tempfile.gettempdir()
    if not name:
        return
    with contextlib.suppress(OSError):  # else it is in the folder of this engine alone
        os.environ.setdefault(COMPILED, f"{private_folder()}/torchinductor")
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix=name)
    if too_long():
        os.environ.setdefault(SOCKETS, outer)
    os.environ |= {VARIABLE: name, OUTER: outer}
    name_memory()


def name_memory() -> None:
    """Make this process, if it is an engine's, name its shared memory and semaphores by the prefix."""
    if name := os.environ.get(VARIABLE):
        shared_memory.SharedMemory = NamedMemory  # type: ignore[misc]
        configuration: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
        configuration["semprefix"] = f"/{name}"


def remove(name: str) -> None:
    """Remove what the engine of this name, which is gone or about to end, has left."""
    if not name:
        return
    for folder in _own(Path(tempfile.gettempdir()), name):
        for meeting in folder.glob(MEETING):
            _unlink(_own(MEMORY, f"{meeting.name}-"))
        shutil.rmtree(folder, ignore_errors=True)
    _unlink([*_own(MEMORY, name), *_own(MEMORY, f"{SEMAPHORE}{name}")])


def sweep() -> None:
    """Remove what engines on this machine that are certainly gone have left."""
    for name in abandoned():
        with contextlib.suppress(OSError):  # another task removes it at the same time
            remove(name)


def abandoned() -> set[str]:
    """Names of engines that left something here and are certainly gone."""
    us = this_process()
    found: set[str] = set()
    places = ((MEMORY, OURS), (MEMORY, SEMAPHORE + OURS), (Path(tempfile.gettempdir()), OURS))
    for path in (path for folder, prefix in places for path in _own(folder, prefix)):
        match = NAME.match(path.name)
        if us is None or not match or match[4] != _machine(us):
            continue
        if match[5] != _boot(us) or is_gone(replace(us, pid=int(match[2]), start=match[3])):
            found.add(match[1])
    return found


def _machine(process: Process) -> str:
    """Of machine and pid namespace; the machine's own namespace is the same after each boot."""
    return _short_hash(f"{process.host}/{process.namespace}")


def _boot(process: Process) -> str:
    return _short_hash(process.boot)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _own(folder: Path, prefix: str) -> list[Path]:
    """This user's entries of a folder whose names begin with a prefix."""
    return list(_of_user(folder, prefix))


def _of_user(folder: Path, prefix: str) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # gone in the meantime
                if (
                    entry.name.startswith(prefix)
                    and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
                ):
                    yield Path(entry.path)


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
