"""run.json, which freezes a run before anything is submitted, and its submissions."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recaption import __version__
from recaption.config import earlier
from recaption.config.records import from_record
from recaption.config.renamed import renamed_record
from recaption.config.schema import Config, Prompt
from recaption.errors import RecaptionError, UserError
from recaption.run import publish, shared
from recaption.run.addresses import public
from recaption.run.identity import fingerprint
from recaption.run.paths import RunPaths, entries
from recaption.versions import versions

FORMAT = 2
FORMATS = (1, FORMAT)  # 0.1.0 writes the first and refuses others
FIRST_RULES = 1  # 0.1.0's
RULES = 2


@dataclass(frozen=True)
class InputShard:
    """One input: its address, the name of the output shard, its size in bytes if known.

    `url` is stored and contains no secret. `place` is the full address if the input has moved or its
    address has secrets; it is never stored.
    """

    url: str
    name: str
    size: int | None
    place: str | None = None

    @property
    def source(self) -> str:
        """The address to read it from."""
        return self.place or self.url

    @property
    def stored(self) -> InputShard:
        """The input as run.json has it."""
        return InputShard(public(self.url), self.name, self.size, self.place)


@dataclass(frozen=True)
class Run:
    """The frozen part of a run.

    `rules` is the version of the rules by which shards are indexed, text is read, and rows and tars
    are built. `presets` is the version whose defaults and presets a launch uses for the run. Runs
    made from this one inherit both.
    """

    fingerprint: str
    identity: dict[str, Any]  # all that the fingerprint covers, by key
    prompts: list[Prompt]
    model: dict[str, Any]  # name, path, revision, files
    shards: list[InputShard]
    versions: dict[str, str]
    created: float
    parent: dict[str, Any] | None = None
    rules: int = FIRST_RULES
    presets: str | None = None  # None: those of the version that froze it

    @property
    def captions_only(self) -> bool:
        """Whether its shards have captions alone, for every key of the inputs."""
        return bool(self.identity["output.mode"] == "captions")

    @property
    def generation(self) -> str | None:
        """The earlier version whose defaults and presets a launch uses for it; None: today's."""
        return earlier.generation(self.presets or self.versions.get("recaption", __version__))


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
    # local runs: the waiting launcher, or the tasks
    processes: list[dict[str, Any]] = field(default_factory=list)
    # pattern of the inputs, if run.json lacks their full addresses or they moved
    inputs: Any = None
    # the submitting process, until its jobs or processes are recorded
    submitter: dict[str, Any] | None = None


def derived(run: Run, covered: dict[str, Any], parent: dict[str, Any], **changes: Any) -> Run:
    """The record of a run made from another one, with that one's rules and presets."""
    return replace(
        run,
        fingerprint=fingerprint(covered),
        identity=covered,
        versions=versions(),
        created=time.time(),
        parent=parent,
        presets=run.presets or run.versions.get("recaption"),
        **changes,
    )


def write_run(paths: RunPaths, run: Run, tag: str) -> bool:
    """Write run.json, which freezes the run; False if it exists already."""
    record = {**vars(run), "format": FORMAT}  # asdict would copy every shard
    record["prompts"] = [asdict(p) for p in run.prompts]
    record["shards"] = [[public(s.url), s.name, s.size] for s in run.shards]
    content = json.dumps(record, ensure_ascii=False, indent=None).encode()
    return publish.create(paths.run_json, content, paths.temporary(paths.run_json, tag))


def read_run(paths: RunPaths) -> Run:
    """Read run.json; UserError if this is no run directory."""
    try:
        record = json.loads(shared.content(paths.run_json))
    except FileNotFoundError:
        raise UserError(f"{paths.root}: not a run directory (no .recaption/run.json)") from None
    if record.pop("format") not in FORMATS:
        raise UserError(f"{paths.run_json}: written by another version of recaption")
    where = str(paths.run_json)
    record["shards"] = [InputShard(*entry) for entry in record["shards"]]
    record["prompts"] = [from_record(Prompt, p, f"{where}: prompts") for p in record["prompts"]]
    run = from_record(Run, record, where)
    if run.rules > RULES:
        raise UserError(
            f"{where}: has rules {run.rules}, of a later version of recaption than this"
        )
    return run


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
    """Record the job ids or processes once they are known."""
    target = paths.submission(submission.number)
    content = json.dumps({**vars(submission), "submitter": None}, ensure_ascii=False).encode()
    publish.replace(target, content, paths.temporary(target, tag))


def read_submission(paths: RunPaths, number: int) -> Submission:
    path = paths.submission(number)
    record = json.loads(shared.replaced_content(path))
    record["config"] = renamed_record(record["config"])
    return from_record(Submission, record, str(path))


def submission_numbers(paths: RunPaths) -> list[int]:
    names = entries(paths.submissions)
    found = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return sorted(int(number) for number in found if number.isdigit())


SECRETIVE = ("setup", "additional")  # keys of slurm that may hold secrets


def plain_config(config: Config) -> dict[str, Any]:
    """A configuration as JSON, without the shard list (run.json has it) and possible secrets."""
    record = asdict(config)
    record["data"]["shards"] = None
    for key in SECRETIVE:
        record["slurm"][key] = type(record["slurm"][key])()
    return record


def left_out(config: Config) -> list[str]:
    """Keys that were given and whose values plain_config leaves out."""
    return [f"slurm.{key}" for key in SECRETIVE if getattr(config.slurm, key)]


def open_run(root: Path | str) -> tuple[RunPaths, Run]:
    """Paths and record of an existing run directory."""
    paths = RunPaths(Path(root).absolute())
    return paths, read_run(paths)
