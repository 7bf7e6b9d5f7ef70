"""recaption.status: how far runs are, and what is wrong with them."""

from __future__ import annotations

from recaption.cli.arguments import Parser

DOES = """\
Shows how far runs are: shards and samples by state, images/s, time left, tasks, and the most
frequent reasons of failures. Held, stuck and lost tasks are red on a terminal (unless NO_COLOR).
"""
MORE = """\
example: python -m recaption.status outputs/train/tiny/short --watch

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


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("status", DOES, MORE)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run directory")
    add("--watch", action="store_true", help="look again until nothing works on the runs any more")
    add(
        "--json",
        action="store_true",
        help="one JSON object, or an array of them for several runs; with --watch one line per look",
    )
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.status.command import show

    return show(options)
