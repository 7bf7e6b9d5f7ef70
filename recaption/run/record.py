"""run.json, which freezes a run before anything is submitted, and its submissions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from recaption import publish
from recaption.config.schema import Config, Prompt, Scorer
from recaption.errors import RecaptionError, UserError
from recaption.run.paths import RunPaths

FORMAT = 1


@dataclass(frozen=True)
class InputShard:
    """One input: where it is, the name of what is made from it, its size in bytes if known."""

    url: str
    name: str
    size: int | None


@dataclass(frozen=True)
class Run:
    """What never changes about a run."""

    fingerprint: str
    identity: dict[str, Any]  # flat key → value, all that the fingerprint covers
    prompts: list[Prompt]
    model: dict[str, Any]  # name, path, revision, files
    shards: list[InputShard]
    versions: dict[str, str]
    created: float
    parent: dict[str, Any] | None = None


@dataclass(frozen=True)
class Submission:
    """One launch or retry: which shards go to which task, and the free part of the configuration."""

    number: int
    config: dict[str, Any]
    selected: list[int]  # positions in Run.shards
    slices: list[list[int]]  # per task, positions in Run.shards
    created: float
    jobs: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # keys that were given but are not stored


def write_run(paths: RunPaths, run: Run, tag: str) -> bool:
    """Freeze the run; False if somebody else did so first."""
    record = {**vars(run), "format": FORMAT}  # asdict would copy every shard
    record["prompts"] = [asdict(p) for p in run.prompts]
    record["shards"] = [[s.url, s.name, s.size] for s in run.shards]
    content = json.dumps(record, ensure_ascii=False, indent=None).encode()
    return publish.create(paths.run_json, content, paths.temporary(paths.run_json, tag))


def read_run(paths: RunPaths) -> Run:
    """Read run.json; UserError if this is no run directory."""
    try:
        record = json.loads(paths.run_json.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{paths.root}: not a run directory (no .recaption/run.json)") from None
    if record.pop("format") != FORMAT:
        raise UserError(f"{paths.run_json}: written by another version of recaption")
    record["shards"] = [InputShard(*entry) for entry in record["shards"]]
    record["prompts"] = [Prompt(**p) for p in record["prompts"]]
    return Run(**record)


def write_submission(paths: RunPaths, submission: Submission, tag: str) -> Submission:
    """Store a submission under the first free number; returns it with that number."""
    for number in range(submission.number, submission.number + 10_000):
        record = {**vars(submission), "number": number}
        content = json.dumps(record, ensure_ascii=False).encode()
        target = paths.submission(number)
        if publish.create(target, content, paths.temporary(target, tag)):
            return Submission(**record)
    raise RecaptionError(f"{paths.submissions}: no free submission number")


def add_jobs(paths: RunPaths, submission: Submission, tag: str) -> None:
    """Record the job ids once they are known."""
    target = paths.submission(submission.number)
    content = json.dumps(vars(submission), ensure_ascii=False).encode()
    publish.replace(target, content, paths.temporary(target, tag))


def read_submission(paths: RunPaths, number: int) -> Submission:
    return Submission(**json.loads(paths.submission(number).read_bytes()))


def submission_numbers(paths: RunPaths) -> list[int]:
    found = [p.stem for p in paths.submissions.glob("*.json")]
    return sorted(int(number) for number in found if number.isdigit())


SECRETIVE = ("setup", "additional")  # keys of slurm that may hold secrets


def plain_config(config: Config) -> dict[str, Any]:
    """A configuration as JSON, without the shard list (run.json has it) or what may hold secrets."""
    record = asdict(config)
    record["data"]["shards"] = None
    for key in SECRETIVE:
        record["slurm"][key] = type(record["slurm"][key])()
    return record


def left_out(config: Config) -> list[str]:
    """Keys whose values plain_config leaves out though they were given."""
    return [f"slurm.{key}" for key in SECRETIVE if getattr(config.slurm, key)]


def typed_config(record: dict[str, Any]) -> Config:
    """The inverse of plain_config; values are taken as they are, `${` too."""
    hints = get_type_hints(Config)
    sections = {
        name: hints[name](**value) if is_dataclass(hints[name]) else value
        for name, value in record.items()
    }
    sections["scorers"] = {name: Scorer(**value) for name, value in record["scorers"].items()}
    return Config(**sections)


def open_run(root: Path | str) -> tuple[RunPaths, Run]:
    """Paths and record of an existing run directory."""
    paths = RunPaths(Path(root).absolute())
    return paths, read_run(paths)
