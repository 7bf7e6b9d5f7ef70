"""Makes sure that one submission at a time works on a run, unless force=true."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import replace

from recaption.cli.at_work import at_work
from recaption.errors import UserError
from recaption.run.paths import RunPaths
from recaption.run.record import Submission, add_jobs


def refuse_at_work(paths: RunPaths, numbers: Iterable[int]) -> None:
    """Raise UserError if one of these submissions is at work.

    A second array would only take shards away from the first.
    """
    found = at_work(paths, numbers)
    if found.unanswered:
        print(
            f"warning: squeue does not answer: whether job {' '.join(found.unanswered)} of this run "
            "is still at work is not known",
            file=sys.stderr,
        )
    if found:
        raise UserError(
            f"the run in {paths.root} is at work: {found}. Nothing is submitted; wait for its end, end "
            f"it with `python -m recaption.stop {paths.root}`, or submit more tasks with force=true"
        )


def give_way(paths: RunPaths, submission: Submission, seen: Collection[int], tag: str) -> None:
    """Withdraw this submission if another launch submitted the run at the same instant.

    Submissions are numbered one by one, so of several launches that saw nothing at work the one with
    the lowest number goes on. Raises UserError if a submission that was not `seen` is at work.
    """
    try:
        refuse_at_work(paths, [n for n in range(submission.number) if n not in seen])
    except UserError:
        add_jobs(paths, replace(submission, slices=[], processes=[]), tag)
        raise
