"""The only module that names files of a run directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

INHERITED = "inherited"  # in place of SUBMISSION-TASK, for shards taken over from a parent run


@dataclass(frozen=True)
class RunPaths:
    """Paths below one run directory; `name` is an output shard's name such as `00000.tar`."""

    root: Path

    @cached_property
    def meta(self) -> Path:
        return self.root / ".recaption"

    @cached_property
    def run_json(self) -> Path:
        return self.meta / "run.json"

    @cached_property
    def sizes_json(self) -> Path:
        return self.root / "sizes.json"

    @cached_property
    def card(self) -> Path:
        return self.root / "README.md"

    @cached_property
    def logs(self) -> Path:
        return self.meta / "logs"

    @cached_property
    def tasks(self) -> Path:
        return self.meta / "tasks"

    @cached_property
    def journals(self) -> Path:
        return self.meta / "journal"

    @cached_property
    def markers(self) -> Path:
        return self.meta / "shards"

    @cached_property
    def submissions(self) -> Path:
        return self.meta / "submissions"

    @cached_property
    def temporaries(self) -> Path:
        return self.meta / "tmp"

    @cached_property
    def leases(self) -> Path:
        return self.meta / "leases"

    @cached_property
    def failures(self) -> Path:
        return self.meta / "failed"

    def folders(self) -> list[Path]:
        """Every folder that a run needs, parents first."""
        below = [self.markers, self.submissions, self.failures, self.leases, self.journals]
        return [self.meta, *below, self.tasks, self.logs, self.temporaries]

    def tar(self, name: str) -> Path:
        return self.root / name

    def marker(self, name: str) -> Path:
        return self.markers / f"{stem(name)}.json"

    def sidecar(self, name: str) -> Path:
        return self.markers / f"{stem(name)}.parquet"

    def failure(self, name: str) -> Path:
        return self.failures / f"{stem(name)}.json"

    def lease(self, name: str) -> Path:
        return self.leases / f"{stem(name)}.json"

    def journal(self, name: str, attempt: str) -> Path:
        return self.journals / f"{stem(name)}@{attempt}.zst"

    def journals_of(self, name: str) -> list[Path]:
        """Every attempt's journal of one shard, in no particular order."""
        prefix = f"{stem(name)}@"
        with os.scandir(self.journals) as entries:
            return [Path(e.path) for e in entries if e.name.startswith(prefix)]

    def temporary(self, final: Path, attempt: str) -> Path:
        """Where an attempt writes `final`; a marker, a lease and a failure have the same name."""
        folder = "" if final.parent == self.root else f".{final.parent.name}"
        return self.temporaries / f"{final.name}@{attempt}{folder}"

    def temporaries_of(self, name: str) -> list[Path]:
        """Temporary files of any attempt at publishing one shard."""
        prefixes = tuple(f"{stem(name)}{suffix}@" for suffix in (".tar", ".parquet", ".json"))
        with os.scandir(self.temporaries) as entries:
            return [Path(e.path) for e in entries if e.name.startswith(prefixes)]

    def temporaries_by(self, attempt: str) -> list[Path]:
        """Temporary files of one attempt."""
        with os.scandir(self.temporaries) as entries:
            return [Path(e.path) for e in entries if f"@{attempt}" in e.name]

    def submission(self, number: int) -> Path:
        return self.submissions / f"{number}.json"

    def task_log(self, submission: int, task: int, attempt: str) -> Path:
        return self.tasks / f"{submission}-{task}@{attempt}.jsonl"

    def task_logs(self, submission: int, task: int) -> list[Path]:
        """Every attempt's log of one task, in no particular order."""
        prefix = f"{submission}-{task}@"
        with os.scandir(self.tasks) as entries:
            return [Path(e.path) for e in entries if e.name.startswith(prefix)]

    def inherited_log(self, tag: str) -> Path:
        return self.tasks / f"{INHERITED}@{tag}.jsonl"

    def output_log(self, job: str) -> Path:
        """What a task printed; `job` is its Slurm id (with submitit's node 0) or local label."""
        return self.logs / f"{job}_log.out"

    def marked(self) -> set[str]:
        """Names of the published shards, by one directory scan."""
        with os.scandir(self.markers) as entries:
            return {f"{e.name[:-5]}.tar" for e in entries if e.name.endswith(".json")}


def stem(name: str) -> str:
    """An output shard's name without `.tar`."""
    return name.removesuffix(".tar")
