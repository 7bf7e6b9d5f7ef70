"""The only module that names files of a run directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from recaption.run import shared

INHERITED = "inherited"  # instead of SUBMISSION-TASK, for shards taken over from a parent run
KILLS = "_kills"  # suffix of files in logs/ with one line for each time that a job was killed
LONGEST_ATTEMPT = 32  # bytes of an attempt's id, and of a launcher's tag
LONGEST_SERIAL = 13  # bytes that tell one attempt's journals apart


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

    def kept(self, digest: str) -> Path:
        """A small file that the run is made with, stored under its sha256."""
        return self.meta / "kept" / digest

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
        names = entries(self.journals)
        return [self.journals / n for n in names if owner_of(n) == stem(name)]

    def temporary(self, final: Path, attempt: str) -> Path:
        """Where an attempt writes `final`; a marker, a lease and a failure have the same name."""
        folder = "" if final.parent == self.root else f".{final.parent.name}"
        return self.temporaries / f"{final.name}@{attempt}{folder}"

    def temporaries_of(self, name: str) -> list[Path]:
        """Temporary files of any attempt at publishing one shard."""
        finals = {f"{stem(name)}{suffix}" for suffix in (".tar", ".parquet", ".json")}
        names = entries(self.temporaries)
        return [self.temporaries / n for n in names if owner_of(n) in finals]

    def temporaries_by(self, attempt: str) -> list[Path]:
        """Temporary files of one attempt."""
        names = entries(self.temporaries)
        return [self.temporaries / n for n in names if f"@{attempt}" in n]

    def submission(self, number: int) -> Path:
        return self.submissions / f"{number}.json"

    def stop(self, number: int) -> Path:
        """Exists once a submission's local tasks are to be stopped and none is to be started."""
        return self.submissions / f"{number}.stop"

    def task_log(self, submission: int, task: int, attempt: str) -> Path:
        return self.tasks / f"{submission}-{task}@{attempt}.jsonl"

    def task_logs(self, submission: int, task: int) -> list[Path]:
        """Every attempt's log of one task, in no particular order."""
        prefix = f"{submission}-{task}@"
        return [self.tasks / n for n in entries(self.tasks) if n.startswith(prefix)]

    def inherited_log(self, tag: str) -> Path:
        return self.tasks / f"{INHERITED}@{tag}.jsonl"

    def output_log(self, job: str) -> Path:
        """What a task printed; `job` is its Slurm id (with submitit's node 0) or local label."""
        return self.logs / f"{job}_log.out"

    def kills(self, job: str) -> Path:
        """Where a batch script counts how often a job was killed before it had a log of its own."""
        return self.logs / f"{job}{KILLS}"

    def marked(self) -> set[str]:
        """Names of the shards with a marker, published or given up, by one directory scan."""
        return {f"{n[:-5]}.tar" for n in entries(self.markers) if n.endswith(".json")}

    def longest_stem(self) -> int:
        """How many bytes a shard's name without `.tar` may have.

        The file system has to accept the names of all its files, journals and temporary ones included.
        """
        attempt = "x" * LONGEST_ATTEMPT
        journal = self.journal(".tar", attempt + "x" * LONGEST_SERIAL)
        temporary = self.temporary(self.sidecar(".tar"), attempt)
        there = next(p for p in (self.root, *self.root.parents) if os.path.exists(p))
        return os.statvfs(there).f_namemax - max(len(journal.name), len(temporary.name))


def entries(folder: Path) -> list[str]:
    """The names in a folder of a run; none if the folder is missing, as in a copy from S3."""
    try:
        return shared.names(folder)
    except FileNotFoundError:
        return []


def owner_of(entry: str) -> str:
    """The part of a journal's or temporary file's name before the last `@`: the file it belongs to."""
    return entry.rpartition("@")[0]


def stem(name: str) -> str:
    """An output shard's name without `.tar`."""
    return name.removesuffix(".tar")
