"""recaption.status: how far runs are, and what is wrong with them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field

from recaption.cli.terminal import Style, is_live
from recaption.errors import UserError, bad_choice
from recaption.run.record import open_run
from recaption.status.overview import NEEDS_RETRY, Overview, overview
from recaption.status.screen import render

CLEAR = "\033[H\033[2J\033[3J"
INTERVAL = 2.0  # seconds between two looks, on a terminal
PLAIN_INTERVAL = 60.0
COST = 10  # looking takes at most a tenth of the time

HELP = """\
usage: python -m recaption.status RUN [RUN …] [--json] [--watch]

Shows how far runs are: shards and samples by state, images/s, time left, tasks, and the most
frequent reasons of failures. Held, stuck and lost tasks are red on a terminal (unless NO_COLOR).

  RUN          a run directory
  --watch      look again until nothing works on the runs any more
  --json       one JSON object, or an array of them for several runs; with --watch one line per look

Exit code: 0 when every shard of every run is published or given up, 1 otherwise, 2 for a wrong use.

JSON of a run (further keys may come, these stay):
  format               1
  run, fingerprint     the directory, the run's fingerprint
  state                complete, running, waiting (for Slurm), held, or needs retry
  shards               total, done, failed, given_up, left
  samples              published = captioned + filtered + rejected + failed; in_progress: samples
                       that are done in shards which are not published yet
  images_per_second    now (last two minutes), overall (while any task was at work)
  seconds_left         an estimate; null when unknown or when nothing is at work
  tasks                submission, task, job, node, attempts, published (shards), settled (samples),
                       rate (images/s), restarts (of engines), engines (not given up on),
                       engines_wanted, started and last_sign (Unix time), log;
                       state: pending, starting, running, stopping, held, stuck, done, stopped, failed,
                       lost, unknown (squeue does not answer); reason;
                       metrics: tokens_per_second, starved (share of the time in which an engine had
                       less than a full batch, though more was to do), ready (pictures),
                       flying (samples), memory_bytes
  given_up             shard: why, of those that were given up (recaption.retry RUN --give-up SHARD)
  failures             what (shard or sample), reason, count, example (SHARD or SHARD/KEY), log
"""


@dataclass
class _Options:
    runs: list[str] = field(default_factory=list)
    json: bool = False
    watch: bool = False


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    options = _parse(arguments)
    live = options.watch and not options.json and is_live(sys.stdout)
    runs = [open_run(root) for root in options.runs]
    while True:
        before = time.monotonic()
        seen = [overview(paths, run) for paths, run in runs]
        print((CLEAR if live else "") + _text(seen, options), end="", flush=True)
        if not options.watch or all(o.complete or o.state == NEEDS_RETRY for o in seen):
            return 0 if all(o.complete for o in seen) else 1
        cost = COST * (time.monotonic() - before)
        time.sleep(max(cost, INTERVAL if live or options.json else PLAIN_INTERVAL))


def _text(seen: list[Overview], options: _Options) -> str:
    if options.json:
        records = [o.to_json() for o in seen]
        value = records[0] if len(records) == 1 else records
        return json.dumps(value, indent=None if options.watch else 1, ensure_ascii=False) + "\n"
    style = Style(sys.stdout)
    return "\n".join(render(o, style) for o in seen)


def _parse(arguments: list[str]) -> _Options:
    options = _Options()
    for argument in arguments:
        if argument == "--json":
            options.json = True
        elif argument == "--watch":
            options.watch = True
        elif argument.startswith("-"):
            raise bad_choice("option", argument, ["--help", "--json", "--watch"])
        else:
            options.runs.append(argument)
    if not options.runs:
        raise UserError("status: needs a run directory (see --help)")
    return options
