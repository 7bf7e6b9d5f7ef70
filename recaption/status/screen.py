"""A run's overview as one screen of text, in color if wanted."""

from __future__ import annotations

from collections import Counter

from recaption.cli.tasks import BAD, DONE, HELD, RUNNING, Task
from recaption.cli.terminal import Style
from recaption.run.rows import STATES
from recaption.status.overview import COMPLETE, NEEDS_RETRY, Overview, age

RED, GREEN, BOLD, DIM = "31", "32", "1", "2"
BAR = 30
SHOWN_TASKS = 16
SHOWN_REASONS = 5


def render(seen: Overview, style: Style) -> str:
    """The text of one run, with a final newline."""
    lines = [*_head(seen, style), *_tasks(seen, style), *_failures(seen, style), *_hints(seen)]
    return "\n".join(lines) + "\n"


def duration(seconds: float | None) -> str:
    """Two units at most: `45 s`, `3 min`, `2 h 10 min`, `3 d 4 h`."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _head(seen: Overview, style: Style) -> list[str]:
    shards, samples = seen.shards, seen.samples
    settled = shards["done"] + shards["given_up"]
    share = settled / shards["total"] if shards["total"] else 1.0
    bar = "#" * int(share * BAR)
    color = {COMPLETE: [GREEN], NEEDS_RETRY: [RED], HELD: [RED]}.get(seen.state, [])
    left = f", {duration(seen.seconds_left)} left" if seen.seconds_left is not None else ""
    failed = f", {shards['failed']} failed"
    given_up = f", {shards['given_up']} given up" if shards["given_up"] else ""
    states = ", ".join(f"{samples[name]} {name}" for name in STATES if samples[name])
    progress = f", {samples['in_progress']} in unpublished shards" if samples["in_progress"] else ""
    now = "" if seen.complete else f"{seen.rate_now:.1f} images/s now, "
    return [
        f"{style(seen.run, BOLD)}: {style(seen.state, BOLD, *color)}",
        f"  [{bar:{BAR}}] {share:6.1%}{left}",
        f"  shards   {shards['done']} of {shards['total']} published"
        f"{style(failed, RED) if shards['failed'] else ''}{given_up}",
        f"  samples  {states or 'none published yet'}{progress}",
        f"  speed    {now}{seen.rate_overall:.1f} images/s overall",
    ]


def _tasks(seen: Overview, style: Style) -> list[str]:
    """Tasks with problems or at work, then the ended tasks of the last submission."""
    last = max((t.submission for t in seen.tasks), default=0)
    bad = [t for t in seen.tasks if t.state in BAD and (t.live or not seen.complete)]
    bad = [t for t in bad if t.live or t.submission == last]
    others = [t for t in seen.tasks if t not in bad and (t.live or t.submission == last)]
    others.sort(key=lambda t: (not t.live, t.state != RUNNING))
    tasks = bad + others
    if not tasks:
        return []
    header = ("task", "job", "node", "state", "attempt", "shards", "images/s", "last sign")
    table = [header, *(_row(t) for t in tasks[:SHOWN_TASKS])]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [""]
    for number, row in enumerate(table):
        line = "  " + "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True))
        task = tasks[number - 1] if number else None
        if task and task.reason:
            line += f"  {task.reason}"
        codes = [DIM] if task is None else [RED] if task in bad else []
        lines.append(style(line.rstrip(), *codes))
    if len(tasks) > SHOWN_TASKS:
        rest = Counter(t.state for t in tasks[SHOWN_TASKS:])
        lines.append("  … " + ", ".join(f"{n} more {state}" for state, n in rest.items()))
    return lines


def _row(task: Task) -> tuple[str, ...]:
    sign = age(task.last_sign)
    return (
        f"{task.submission}-{task.task}",
        task.job or "-",
        task.node or "-",
        task.state,
        str(task.attempts),
        str(task.published),
        f"{task.rate:.1f}" if task.state == RUNNING else "-",
        f"{duration(sign)} ago" if sign is not None and task.state != DONE else "-",
    )


def _failures(seen: Overview, style: Style) -> list[str]:
    lines = []
    if seen.given_up:
        shown = list(seen.given_up.items())[:SHOWN_REASONS]
        lines += ["", "  shards that were given up:", *(f"  {n}: {why}" for n, why in shown)]
        if len(seen.given_up) > len(shown):
            lines.append(f"  … and {len(seen.given_up) - len(shown)} more (--json has all)")
    for what in ("shard", "sample"):
        found = [r for r in seen.reasons if r.what == what][:SHOWN_REASONS]
        if found:
            title = "shards that failed" if what == "shard" else "samples without a caption"
            lines += ["", f"  {title}:"]
        for reason in found:
            text = f"  {reason.count:6} × {reason.reason}"
            lines.append(style(text, RED) if what == "shard" else text)
            lines.append(style(f"           such as {reason.example}; {reason.log}", DIM))
    return lines


def _hints(seen: Overview) -> list[str]:
    hints = []
    held = sorted({t.job for t in seen.tasks if t.state == HELD})
    if held:
        hints.append(f"  held by Slurm; when the cause is gone: scontrol release {' '.join(held)}")
    if seen.state == NEEDS_RETRY:
        hints.append(f"  needs retry: python -m recaption.retry {seen.run}")
    if seen.shards["failed"]:
        hints.append("  a shard that cannot be made: the same with --give-up SHARD")
    return ["", *hints] if hints else []
