"""Finds a run's inputs where they are now, if they have moved or if their addresses hold secrets.

run.json lacks secrets, so launch passes the pattern of such inputs to its tasks in the environment,
or, if the pattern is a list file, names that file in the submission.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from recaption.errors import UserError
from recaption.run.addresses import HASHED, is_command, is_incomplete, public
from recaption.run.output_names import output_names
from recaption.run.record import InputShard, Run, Submission
from recaption.shard.patterns import LISTS, expand, patterns_of

VARIABLE = "RECAPTION_INPUTS"
LARGEST = 100_000  # bytes of the environment variable; the system allows 128 KiB
HOW = "--inputs PATTERN, the data.shards that they were given as, says it"


@dataclass(frozen=True)
class Carried:
    """How a submission's tasks learn where its inputs are; empty if run.json says it."""

    stored: Any = None
    environment: dict[str, str] = field(default_factory=dict)


def carried(run: Run, pattern: Any, *, exports: bool, moved: bool) -> Carried:
    """For a run whose inputs `pattern` names; `exports`: the tasks get the environment.

    Raises UserError if the pattern has to be a list file.
    """
    if not moved and not any(is_incomplete(shard.url) for shard in run.shards):
        return Carried()
    if isinstance(pattern, str) and pattern.endswith(LISTS):
        return Carried(os.path.abspath(os.path.expanduser(pattern)))
    if not any(is_incomplete(public(shard.source)) for shard in located(run, pattern).shards):
        return Carried(pattern)
    value = json.dumps(pattern if isinstance(pattern, str) else list(map(str, pattern)))
    put = "it is not stored, since it may hold secrets; put it into a list file (data.shards=FILE.txt)"
    if not exports:
        raise UserError(
            f"data.shards: sbatch exports no environment that could carry it, and {put}"
        )
    if len(value.encode()) > LARGEST:
        raise UserError(f"data.shards: over {LARGEST} bytes, too long to be handed on, and {put}")
    return Carried(environment={VARIABLE: value})


def of_submission(
    run: Run, submission: Submission, environment: Mapping[str, str] = os.environ
) -> Run:
    """A run with its inputs' addresses as a task of this submission reads them."""
    if submission.inputs is not None:
        return located(run, submission.inputs)
    if not any(is_incomplete(shard.url) for shard in run.shards):
        return run
    if VARIABLE in environment:
        return located(run, json.loads(environment[VARIABLE]))
    return known(run, f"the environment lacks {VARIABLE}")


def readable(
    run: Run, pattern: str | None, *, allow_pipe: bool, what: str, key: str = "--inputs"
) -> Run:
    """A run with the addresses of its sources: those of `pattern`, if given (as the option `key`).

    Raises UserError if an input is not known, or is a command and these are not allowed.
    """
    run = run if pattern is None else located(run, pattern, key)
    if not allow_pipe and any(is_command(shard.source) for shard in run.shards):
        raise UserError(f"{what}: its sources are commands; needs --allow-pipe")
    return known(run, what)


def known(run: Run, what: str) -> Run:
    """The run, if all its inputs can be read; UserError if an address is incomplete."""
    for shard in run.shards:
        if is_incomplete(shard.source):
            lost = (
                "the command of its sources" if is_command(shard.url) else "the query of its URLs"
            )
            raise UserError(f"{what}: {lost} may hold secrets, and is not stored: {HOW}")
    return run


def located(run: Run, pattern: Any, key: str = "data.shards") -> Run:
    """A run with the addresses of `pattern`, whose inputs have the names of the run's.

    Raises UserError if one is missing, or is another command.
    """
    urls = expand(pattern, patterns_of(run))
    there = dict(zip(output_names(urls), urls, strict=True))
    return replace(run, shards=[_located(shard, there, key) for shard in run.shards])


def _located(shard: InputShard, there: Mapping[str, str], key: str) -> InputShard:
    url = there.get(shard.name)
    if url is None:
        raise UserError(
            f"{key}: none of its inputs would become {shard.name}, as {public(shard.url)} did"
        )
    if shard.url.startswith(HASHED) and public(url) != shard.url:
        raise UserError(f"{key}: the command of {shard.name} is another than the run was made with")
    return replace(shard, place=url)
