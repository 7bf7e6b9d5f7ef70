"""The command: composes a configuration as launch does, makes all checks, and prints them."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
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
from recaption.engine.needs import unmet
from recaption.launch.command import compose_point
from recaption.launch.options import Options
from recaption.launch.plan import inputs, select
from recaption.launch.preflight import elsewhere
from recaption.run.record import InputShard
from recaption.shard.patterns import Patterns

COLORS = {OK: "32", WARN: "33", FAIL: "31"}


def examine(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    words = overrides.prepare(options.words)
    config = compose_point(words, Options.of(options), shards_needed=False).config
    style = Style(sys.stdout)
    found: list[Check] = []

    def add(checks: Sequence[Check]) -> None:
        found.extend(checks)
        if not options.json:
            for check in checks:
                print(_line(check, style), flush=True)

    try:
        add(_effects(config, words))
        _look(config, options.wait, add)
    finally:
        if options.json:
            record = {"ok": not _failed(found), "checks": [asdict(check) for check in found]}
            print(json.dumps(record, indent=1, ensure_ascii=False))
    if not options.json:
        counts = [f"{sum(c.result == r for c in found)} {r}" for r in (OK, WARN, FAIL)]
        print(", ".join(counts))
    return 1 if _failed(found) else 0


def _effects(config: Config, words: Sequence[str]) -> list[Check]:
    """Launch's refusals for a new run, and its warnings, as checks."""
    named = {word.partition("=")[0].lstrip("+~") for word in words}
    advice = "launch refuses it for a new run"
    found = [fail("keys", text, advice) for text in refusals(config, [config.prompt], named)]
    return found + [warn("keys", text, "see that key") for text in remarks(config, named)]


def _look(config: Config, wait: float, add: Callable[[Sequence[Check]], None]) -> None:
    """All checks; each is printed as soon as it is known."""
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
    add(tried("packages", check_packages))
    if config.engine.kind != "fake" and (reason := unmet(config.model)):
        add([warn("vllm", elsewhere(config.model, reason), "see what the job below says of it")])
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
    """Check that files found on this machine and on the node are the same."""
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
