"""The command: composes a configuration as launch does, looks at everything, and prints what it saw."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from recaption.cli.terminal import Style
from recaption.config import overrides
from recaption.config.effects import refusals, remarks
from recaption.config.schema import Config
from recaption.doctor.check import FAIL, OK, WARN, Check, fail, ok, tried, warn
from recaption.doctor.cluster import check_cluster
from recaption.doctor.files import check_files
from recaption.doctor.folder import check_folder, nearest
from recaption.doctor.job import check_job
from recaption.doctor.node import check_node
from recaption.doctor.packages import check_packages
from recaption.errors import UserError, bad_value
from recaption.launch.command import compose_point
from recaption.launch.options import Options, parse
from recaption.launch.plan import inputs, select
from recaption.run.record import InputShard
from recaption.shard.patterns import Patterns

WAIT = 120.0
COLORS = {OK: "32", WARN: "33", FAIL: "31"}

HELP = """\
usage: python -m recaption.doctor [KEY=VALUE …] [--wait SECONDS] [--json] [--config-dir DIR]

Checks a site before the first array, with the keys that launch will be given (data.shards may be left
out): Python and packages, vLLM and GPUs, what the file system of output.dir can do and how much room it
has, the model's and ONNX files, memory and temporary space. No engine is started, nothing is downloaded.

With slurm=cluster also what the controller says (MaxArraySize, requeue, preemption, accounting,
partition, account, qos), whether sbatch would take the job; then one job of one task with the same
settings looks at a node, and whether files written there are seen here, and the other way round.

  --wait SECONDS   how long that job may wait for its start (120); then it is canceled
  --json           one JSON object: ok (nothing fails), checks (name, result: ok, warn or fail; text,
                   advice, where: the node, or empty for this machine)

Exit code: 0 when nothing fails, 1 when something does, 2 for a wrong use.
"""


@dataclass(frozen=True)
class _Asked:
    launch: Options
    wait: float
    json: bool


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    asked = _parse(arguments)
    words = overrides.prepare(asked.launch.words)
    config = compose_point(words, asked.launch, shards_needed=False).config
    style = Style(sys.stdout)
    found: list[Check] = []

    def add(checks: Sequence[Check]) -> None:
        found.extend(checks)
        if not asked.json:
            for check in checks:
                print(_line(check, style), flush=True)

    try:
        add(_effects(config, words))
        _look(config, asked.wait, add)
    finally:
        if asked.json:
            record = {"ok": not _failed(found), "checks": [asdict(check) for check in found]}
            print(json.dumps(record, indent=1, ensure_ascii=False))
    if not asked.json:
        counts = [f"{sum(c.result == r for c in found)} {r}" for r in (OK, WARN, FAIL)]
        print(", ".join(counts))
    return 1 if _failed(found) else 0


def _effects(config: Config, words: Sequence[str]) -> list[Check]:
    """What launch would refuse for a new run, and what it would remark on."""
    named = {word.partition("=")[0].lstrip("+~") for word in words}
    advice = "launch refuses it for a new run"
    found = [fail("keys", text, advice) for text in refusals(config, [config.prompt], named)]
    return found + [warn("keys", text, "see that key") for text in remarks(config, named)]


def _look(config: Config, wait: float, add: Callable[[Sequence[Check]], None]) -> None:
    """Everything, each check said as soon as it is known."""
    cluster = config.slurm.kind == "cluster"
    shards: list[InputShard] = []
    if config.data.shards:
        add(tried("input", lambda: _input(config, shards)))
    folder = nearest(Path(config.output.dir))
    writable = check_folder(folder, shards, full=config.output.mode == "full")
    add(writable)
    if not cluster:
        add(check_node(config))
        return
    add(tried("packages", lambda: check_packages(engine=False)))
    here = check_files(config)
    add(here)
    controller = check_cluster(config, len(shards))
    add(controller)
    if _failed(controller) or _failed(writable):
        add([fail("job", "not submitted", "first see to what fails above")])
        return
    there = tried("job", lambda: check_job(config, folder, wait))
    add(there)
    add(_same_files(here, there))


def _input(config: Config, shards: list[InputShard]) -> list[Check]:
    patterns = Patterns()
    found = inputs(config, patterns)
    shards += [found[position] for position in select(config.data.range, len(found))]
    known = sum(shard.size or 0 for shard in shards)
    there = ok("input", f"{len(shards)} shards, {known / 1e9:.1f} GB as far as it is known")
    passed = patterns.remark()
    return [there, warn("input", passed, "name the shards alone")] if passed else [there]


def _same_files(here: Sequence[Check], there: Sequence[Check]) -> list[Check]:
    """A file that is found on both sides has to be the same."""
    seen = {check.name: check for check in here if check.result == OK}
    return [
        fail(c.name, f"here {seen[c.name].text}, there {c.text}", "one file for all nodes")
        for c in there
        if c.result == OK and c.name in seen and c.name not in ("python", "packages")
        if seen[c.name].text != c.text
    ]


def _failed(checks: Sequence[Check]) -> bool:
    return any(check.result == FAIL for check in checks)


def _line(check: Check, style: Style) -> str:
    where = f" ({check.where})" if check.where else ""
    result = style(f"{check.result:4}", COLORS[check.result])
    line = f"{result}  {check.name}{where}: {check.text}"
    return f"{line}\n      → {check.advice}" if check.advice and check.result != OK else line


def _parse(arguments: list[str]) -> _Asked:
    wait, as_json, rest = WAIT, False, []
    words = iter(arguments)
    for argument in words:
        name, equals, value = argument.partition("=")
        if name == "--wait":
            wait = _seconds(value if equals else next(words, None))
        elif argument == "--json":
            as_json = True
        elif argument in ("-m", "--multirun", "--resolve") or name in ("--cfg", "-c"):
            raise UserError(f"{argument}: an option of launch; doctor checks one configuration")
        else:
            rest.append(argument)
    return _Asked(parse(rest), wait, as_json)


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or "")
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise bad_value("--wait", text, "seconds, 0 to 86400")
    return seconds
