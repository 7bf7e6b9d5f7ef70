"""Running the public commands as a user does, and reading what they leave behind."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from drawing import Sample

MARK = "RECAPTION_TEST_MARK"
GRACE = 10.0  # seconds that processes have to disappear in
IMAGES = ("jpg", "jpeg", "png", "webp")

Completed = subprocess.CompletedProcess[str]
Members = dict[str, bytes]


@dataclass(frozen=True)
class Source:
    """Input shards and what is in them, by name."""

    folder: Path
    shards: dict[str, list[Sample]]

    @property
    def word(self) -> str:
        return f"data.shards={self.folder}/*.tar"

    @property
    def samples(self) -> dict[str, Sample]:
        return {s.key: s for samples in self.shards.values() for s in samples}


@dataclass(frozen=True)
class Made:
    """A finished run and what its launch said."""

    run: Path
    result: Completed


@dataclass
class Process:
    """A launch in the background, in a folder and with an environment variable of its own."""

    popen: subprocess.Popen[str]
    mark: str
    cwd: Path
    words: tuple[str, ...] = field(default=())

    def left(self) -> list[tuple[int, str]]:
        """Processes of this launch that are there: pid and command line."""
        return [
            (pid, command)
            for pid, command in _marked(self.mark, self.cwd)
            if pid != self.popen.pid or self.popen.poll() is None
        ]

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the launcher, whose tasks have sessions of their own."""
        self.popen.send_signal(signal.SIGINT)

    def finish(self, timeout: float) -> Completed:
        """Wait for its end and that of all its processes; AssertionError if one stays."""
        out, err = self.popen.communicate(timeout=timeout)
        wait_until(lambda: not self.left(), GRACE, lambda: f"processes are left: {self.left()}")
        return Completed(list(self.words), self.popen.returncode, out, err)


@contextmanager
def started(*words: str, cwd: Path, module: str = "launch") -> Iterator[Process]:
    """`python -m recaption.MODULE WORDS` in `cwd`; whatever is left at the end is killed."""
    mark = uuid.uuid4().hex
    popen = subprocess.Popen(
        [sys.executable, "-m", f"recaption.{module}", *words],
        cwd=cwd,
        env={**os.environ, MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process = Process(popen, mark, cwd, words)
    try:
        yield process
    finally:
        for pid, _ in process.left():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        popen.wait()
        assert popen.stdout is not None
        assert popen.stderr is not None
        popen.stdout.close()
        popen.stderr.close()


def launch(*words: str, cwd: Path, timeout: float = 120, module: str = "launch") -> Completed:
    """Run a command to its end; AssertionError if it leaves a process behind."""
    with started(*words, cwd=cwd, module=module) as process:
        return process.finish(timeout)


def launched(*words: str, cwd: Path, timeout: float = 120, module: str = "launch") -> Completed:
    """As launch, for a command that has to succeed."""
    result = launch(*words, cwd=cwd, timeout=timeout, module=module)
    assert result.returncode == 0, f"{words}\n{result.stdout}\n{result.stderr}\n{task_logs(cwd)}"
    assert "Traceback" not in result.stdout + result.stderr
    return result


def refused(result: Completed, *named: str) -> str:
    """Assert a user's mistake: exit code 2, one line that names all of `named`; returns it."""
    assert result.returncode == 2, result
    assert "Traceback" not in result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    for name in named:
        assert name in lines[0]
    return lines[0]


def children_cpu() -> float:
    """CPU seconds of the children that have ended: other tests run beside this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wait_until(
    true: Callable[[], Any], seconds: float, what: str | Callable[[], str], step: float = 0.05
) -> Any:
    """Poll until `true()`; AssertionError with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > deadline:
            raise AssertionError(what if isinstance(what, str) else what())
        time.sleep(step)
    return value


def task_logs(folder: Path) -> str:
    """The ends of all tasks' logs below a folder, for messages of failed tests."""
    logs = sorted(folder.glob("**/.recaption/logs/*"))
    return "\n".join(
        f"== {p}\n{p.read_text(errors='replace')[-2000:]}" for p in logs if p.is_file()
    )


def read_shard(path: Path) -> dict[str, Members]:
    """Key → extension → bytes, in order; AssertionError where samples or members repeat."""
    samples: dict[str, Members] = {}
    last = None
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            folder, _, name = info.name.rpartition("/")
            base, _, extension = name.partition(".")
            key = f"{folder}/{base}" if folder else base
            assert key == last or key not in samples, f"{key} is not in one piece"
            last = key
            members = samples.setdefault(key, {})
            assert extension not in members, f"{info.name} is there twice"
            file = tar.extractfile(info)
            assert file is not None
            members[extension] = file.read()
    return samples


def read_run(run: Path) -> dict[str, dict[str, Members]]:
    """Every shard of a run by its name."""
    return {path.name: read_shard(path) for path in sorted(run.glob("*.tar"))}


def captions(run: Path) -> dict[str, str]:
    """Caption by key, over all shards of a run."""
    return {
        key: members["txt"].decode()
        for samples in read_run(run).values()
        for key, members in samples.items()
    }


def markers(run: Path) -> dict[str, dict[str, Any]]:
    """Done-markers by shard name."""
    found = sorted((run / ".recaption/shards").glob("*.json"))
    return {f"{p.stem}.tar": json.loads(p.read_bytes()) for p in found}


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    """Rows of one shard's sidecar."""
    sidecar = run / ".recaption/shards" / f"{name.removesuffix('.tar')}.parquet"
    found: list[dict[str, Any]] = pq.read_table(sidecar).to_pylist()
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def image_of(members: Members) -> bytes:
    """The one image member of a sample."""
    (image,) = [content for extension, content in members.items() if extension in IMAGES]
    return image


def assert_same_samples(run: Path, source: dict[str, Sequence[Sample]]) -> None:
    """Every input key once and in order, every member but .txt and .json identical."""
    made = read_run(run)
    assert list(made) == list(source)
    for name, samples in source.items():
        assert list(made[name]) == [s.key for s in samples], name
        for sample in samples:
            members = made[name][sample.key]
            others = {k: v for k, v in members.items() if k not in ("txt", "json")}
            wanted = {k: v for k, v in sample.members.items() if k not in ("txt", "json")}
            assert others == wanted, sample.key
            assert {"txt", "json"} <= set(members)


@dataclass(frozen=True)
class Said:
    """What a caption of the tiny model says; `places` and `background` where it is detailed."""

    names: list[tuple[str, str]]
    sizes: list[str]
    places: list[str]
    background: str


SHAPE = re.compile(
    r"\ban? (?:(?P<size>small|large) )?(?P<color>[a-z]+) (?P<kind>circle|square|triangle|star)\b"
    r"(?: at the (?P<place>(?:top|middle|bottom) (?:left|center|right)))?"
)
GROUND = re.compile(r"\bon an? ([a-z]+) background")


def parse_caption(text: str) -> Said:
    """Read a caption in the tiny model's words; what is not in them is left out."""
    found = list(SHAPE.finditer(text))
    ground = GROUND.search(text)
    return Said(
        [(m["color"], m["kind"]) for m in found],
        [m["size"] or "" for m in found],
        [m["place"] or "" for m in found],
        ground[1] if ground else "",
    )


def _marked(mark: str, cwd: Path) -> list[tuple[int, str]]:
    """Living processes with this environment or working folder."""
    found = []
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            ours = wanted in (entry / "environ").read_bytes().split(b"\0")
            if not ours:
                ours = (entry / "cwd").resolve() == cwd.resolve()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if ours and state not in "ZX":
            found.append((int(entry.name), command.strip()))
    return found
