"""How long the commands take on a run of many shards.

    python benchmarks/large_run.py [--shards 10000] [--folder FOLDER] [--only status,retry]

Two small shards are really captioned by the fake engine, one of them with a broken picture. Then a
run of many shards is launched on a Slurm whose sbatch takes jobs and never runs them, and every shard
is published as copies of those two: tar, sidecar, marker, and lines in the logs of 64 tasks. Each
command is timed on it, start of Python included. A run whose FOLDER is there is used again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

SAMPLES = 4
BROKEN_EVERY = 100  # shards, of which one has a broken picture
PROGRAMS = {
    "sbatch": "echo Submitted batch job $$",
    "srun": "exit 1",
    "squeue": "exit 0",
    "sacct": "exit 0",
    "scontrol": "echo 'MaxArraySize = 1001'",
}
COMMON = ("engine=fake", "slurm=cluster", "slurm.tasks=64")


@dataclass(frozen=True)
class Site:
    """Everything below one folder."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def word(self, shards: int) -> str:
        return f"data.shards={self.folder}/in/{{00000..{shards - 1:05d}}}.tar"

    def command(self, name: str, *words: str) -> list[str]:
        return [sys.executable, "-m", f"recaption.{name}", *words]

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}


def make(site: Site, shards: int) -> None:
    """Input, programs of a Slurm, and the published run."""
    for name, body in PROGRAMS.items():
        program = site.folder / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    inputs = site.folder / "in"
    inputs.mkdir()
    for kind in (0, 1):
        _write_input(site.folder / f"{kind}.tar", broken=bool(kind))
    for i in range(shards):
        os.link(site.folder / f"{_kind(i)}.tar", inputs / f"{i:05d}.tar")
    small = site.folder / "small"
    words = [f"data.shards={site.folder}/{{0..1}}.tar", "engine=fake", f"output.dir={small}"]
    quietly(site, site.command("launch", *words))
    quietly(site, site.command("launch", site.word(shards), *COMMON, f"output.dir={site.run}"))
    _publish(site, shards)


def _write_input(path: Path, *, broken: bool) -> None:
    with tarfile.open(path, "w") as tar:
        for i in range(SAMPLES):
            picture = BytesIO()
            Image.new("RGB", (64, 48), (40 * i, 90, 30)).save(picture, "JPEG")
            shown = b"broken" if broken and i == 1 else picture.getvalue()
            for extension, content in (("jpg", shown), ("txt", b"a caption")):
                info = tarfile.TarInfo(f"{i:06d}.{extension}")
                info.size = len(content)
                tar.addfile(info, BytesIO(content))


def _kind(shard: int) -> int:
    """Which of the two shards this one is a copy of: 1 is the broken one."""
    return int(shard % BROKEN_EVERY == BROKEN_EVERY - 1)


def _publish(site: Site, shards: int) -> None:
    meta, small = site.run / ".recaption", site.folder / "small"
    fingerprint = json.loads((meta / "run.json").read_bytes())["fingerprint"]
    slices = json.loads((meta / "submissions/0.json").read_bytes())["slices"]
    models = [small / ".recaption/shards" / f"{kind}.json" for kind in (0, 1)]
    records: list[dict[str, Any]] = [json.loads(m.read_bytes()) for m in models]
    assert records[1]["counts"]["rejected"] == 1, records[1]
    for task, positions in enumerate(slices):
        lines = [_event("start", node="n", pid=1, engines=1, workers=1)]
        for position in positions:
            kind, name = _kind(position), f"{position:05d}"
            shutil.copyfile(small / f"{kind}.tar", site.run / f"{name}.tar")
            sidecar = models[kind].with_suffix(".parquet")
            shutil.copyfile(sidecar, meta / f"shards/{name}.parquet")
            source = {**records[kind]["input"], "url": f"{site.folder}/in/{name}.tar"}
            record = {**records[kind], "shard": f"{name}.tar", "input": source}
            text = json.dumps({**record, "fingerprint": fingerprint}, indent=1)
            (meta / f"shards/{name}.json").write_text(f"{text}\n")
            counts = {"counts": record["counts"], "won": True}
            lines.append(_event("published", shard=f"{name}.tar", **counts))
        done = SAMPLES * len(positions)
        lines += [_event("beat", captioned=done, settled=done, seconds=9.0, restarts=0)]
        lines += [_event("stop", why="done", reason="")]
        (meta / f"tasks/0-{task}@0-{task}-0-{task:012x}.jsonl").write_text("".join(lines))
    assert sum(map(len, slices)) == shards


def _event(event: str, **values: Any) -> str:
    return json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n"


def quietly(site: Site, command: Sequence[str], *, codes: Sequence[int] = (0,)) -> str:
    done = subprocess.run(command, env=site.env, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@dataclass
class Timing:
    """One command's figures, in seconds."""

    name: str
    limit: float
    wall: float
    cpu: float
    said: str


def timed(name: str, limit: float, act: Callable[[], str]) -> Timing:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    said = act()
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(name, limit, wall, cpu, said)


def measurements(site: Site, shards: int, wanted: set[str]) -> Iterator[Timing]:
    """The table's rows; the run itself is whole again after each."""
    launch = site.command("launch", site.word(shards), *COMMON, f"output.dir={site.run}")
    status, retry = site.command("status", str(site.run)), site.command("retry", str(site.run))
    new = site.folder / "new"
    again = [*retry, "--status", "rejected", "-o", str(new)]

    def rows() -> Iterator[tuple[str, float, Callable[[], str]]]:
        yield "status", 3, lambda: _last(quietly(site, status, codes=(0, 1)), 1)
        yield "status --json", 3, lambda: _last(quietly(site, [*status, "--json"]), 0)
        yield "launch, nothing to do", 5, lambda: _last(quietly(site, launch))
        yield "retry, nothing missing", 5, lambda: _last(quietly(site, retry))
        yield "retry, 100 missing", 5, lambda: _last(quietly(site, retry), 1)
        yield "retry --status rejected -o NEW", 5, lambda: _last(quietly(site, again), 0)
        yield (
            "the same with sampling changed",
            5,
            lambda: _last(quietly(site, [*again, "sampling.top_k=5"]), 0),
        )
        yield "verify, to the first sign", 5, lambda: _first_line(site)
        if importlib.util.find_spec("recaption.report"):
            page = site.folder / "report.html"
            report = site.command("report", str(site.run), "-o", str(page))
            yield "report", 5, lambda: _last(quietly(site, report))

    for name, limit, act in rows():
        if wanted and not wanted & {name, name.split(",")[0].split()[0]}:
            continue
        shutil.rmtree(new, ignore_errors=True)
        hidden = _hide(site) if "missing" in name and "nothing" not in name else []
        try:
            yield timed(name, limit, act)
        finally:
            for marker in hidden:
                marker.with_suffix(".hidden").rename(marker)
            if hidden:
                for number in range(1, 9):
                    (site.run / f".recaption/submissions/{number}.json").unlink(missing_ok=True)
    shutil.rmtree(new, ignore_errors=True)


def _hide(site: Site) -> list[Path]:
    markers = sorted((site.run / ".recaption/shards").glob("*.json"))[::100]
    for marker in markers:
        marker.rename(marker.with_suffix(".hidden"))
    return markers


def _last(text: str, line: int = -1) -> str:
    return text.strip().splitlines()[line].strip()


def _first_line(site: Site) -> str:
    """What verify says first about its progress; it is ended then, with all its processes."""
    command = site.command("verify", str(site.run))
    with subprocess.Popen(
        command,
        env=site.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline().decode().strip()
        os.killpg(process.pid, signal.SIGKILL)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        site = Site((options.folder or Path(temporary)).absolute())
        if not site.run.exists():
            took = timed("", 0, lambda: str(make(site, options.shards)))
            print(f"{options.shards} shards made in {took.wall:.1f} s")
        print(f"{'command':32} {'wall s':>7} {'CPU s':>7} {'limit':>6}  it said")
        wanted = set(filter(None, options.only.split(",")))
        for row in measurements(site, options.shards, wanted):
            print(f"{row.name:32} {row.wall:7.2f} {row.cpu:7.2f} {row.limit:6.0f}  {row.said[:60]}")


if __name__ == "__main__":
    main()
