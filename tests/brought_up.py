"""What scripts in slurm/ bring up in a folder of its own, on free ports, and take down again."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

SCRIPTS = Path(__file__).resolve().parents[1] / "slurm"
PORT_TAKEN, UNAVAILABLE = 76, 77  # exit codes of the scripts
TRIES = 8


class Unavailable(RuntimeError):
    """It cannot be had on this machine; the message says why."""


class BroughtUp:
    """A handle on what the two scripts bring up and take down, with this environment."""

    scripts: ClassVar[tuple[str, str]]

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory, self.environment = directory, environment

    def down(self) -> None:
        """Ends all that belongs to it, and removes the directory."""
        name = self.scripts[1]
        done = self.script(name, "--wipe")
        if done.returncode != 0:
            raise RuntimeError(f"{name}: {done.stderr.strip()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPTS / name), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )


Handle = TypeVar("Handle", bound=BroughtUp)


def brought_up(make: Callable[[Path, int], Handle], prefix: str, *, ports: bool = True) -> Handle:
    """Make a handle of a new folder and the first of some ports, and bring it up.

    Other ports are tried where some are taken, unless it does not heed them. Raises Unavailable.
    """
    said = ""
    for _ in range(TRIES):
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))  # short, for sockets in it
        made = make(directory, random.randrange(15001, 32000, 100))
        up, down = made.scripts
        done = made.script(up)
        if done.returncode == 0:
            return made
        said = (done.stderr.strip() or f"{up} said nothing").splitlines()[-1]
        made.script(down, "--wipe")
        shutil.rmtree(directory, ignore_errors=True)
        if done.returncode == UNAVAILABLE:
            raise Unavailable(said)
        if done.returncode != PORT_TAKEN or not ports:
            break
    raise RuntimeError(said)
