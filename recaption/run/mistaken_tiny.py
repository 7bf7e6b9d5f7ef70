"""Runs that must not go on: the tiny model's captions under another model's name."""

from __future__ import annotations

from recaption.errors import UserError
from recaption.run.paths import RunPaths
from recaption.run.record import Run, read_submission, submission_numbers

TINY = "builtin:tiny"


def refuse_mistaken(paths: RunPaths, run: Run) -> None:
    """Raise UserError for a run of 0.1.0 that took model.repo=… for the shipped model."""
    if run.model["path"] != TINY:
        return
    for number in submission_numbers(paths):
        repo = read_submission(paths, number).config["model"].get("repo")
        if repo:
            raise UserError(
                f"{paths.root}: its captions are those of the shipped tiny model under the name "
                f"{run.model['name']}, since 0.1.0 passed over model.repo={repo}; remove this run, "
                "or choose another output.dir, and launch again"
            )
