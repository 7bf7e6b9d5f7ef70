"""The command: what is published of a run goes where others can get it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from recaption.errors import UserError, bad_choice, bad_value
from recaption.run.paths import RunPaths
from recaption.run.record import Run, open_run
from recaption.run.scan import named
from recaption.upload import hub, s3
from recaption.upload.contents import Contents, contents
from recaption.upload.outcome import Outcome

SHOWN = 10
Send = Callable[[str, Contents, str], Outcome]
STORES: dict[str, Send] = {"s3://": s3.upload, "hf://": hub.upload}

HELP = """\
usage: python -m recaption.upload RUN DEST [--partial] [--shards-only]

Copies a finished run. The same command again sends only what is missing or different there, by size and
SHA-256; so it also goes on after it was killed. A shard's marker comes after its data.

  DEST             s3://BUCKET[/PREFIX]
                   hf://datasets/USER/NAME[@BRANCH][/FOLDER]; the data set, as a private one, and its branch
                   are made where there are none
  --partial        also from a run that is not finished: the shards that are published
  --shards-only    without .recaption, whose files name the inputs, hosts and folders of the run

Access comes from the environment, and nothing of it is stored. S3: AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL for other stores than Amazon's.
The Hub: HF_TOKEN or `hf auth login`; HF_ENDPOINT.

Exit code: 0 if everything is there, 1 if something is missing, 2 for a wrong use.
"""


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    root, dest, options = _parse(arguments)
    upload = next((send for scheme, send in STORES.items() if dest.startswith(scheme)), None)
    if upload is None:
        raise bad_value("DEST", dest, f"use s3://BUCKET[/PREFIX] or {hub.FORM}")
    paths, run = open_run(root)
    with tempfile.TemporaryDirectory(prefix="recaption-") as scratch:
        whole = contents(paths, run, Path(scratch), shards_only="--shards-only" in options)
        return _send(paths, run, whole, upload, dest, partial="--partial" in options)


def _send(
    paths: RunPaths, run: Run, whole: Contents, upload: Send, dest: str, *, partial: bool
) -> int:
    if whole.missing and not partial:
        raise UserError(
            f"{paths.root}: {whole.missing} of {len(run.shards)} shards are not published yet; "
            "finish the run, or upload what there is with --partial"
        )
    if whole.given_up:
        print(named(whole.given_up))
    return _report(dest, upload(dest, whole, run.fingerprint))


def _report(dest: str, outcome: Outcome) -> int:
    for name, why in list(outcome.failed.items())[:SHOWN]:
        print(f"recaption: {name}: {why}", file=sys.stderr)
    if len(outcome.failed) > SHOWN:
        print(f"recaption: … and {len(outcome.failed) - SHOWN} more", file=sys.stderr)
    for note in outcome.notes:
        print(note)
    sent = f"{outcome.sent} files sent ({outcome.size / 1e6:.1f} MB)"
    print(f"{dest}: {sent}, {outcome.there} were there")
    if outcome.failed:
        rest = f", {outcome.not_tried} not tried" if outcome.not_tried else ""
        print(f"{len(outcome.failed)} failed{rest}; the same command again sends what is missing")
    return 1 if outcome.failed else 0


def _parse(arguments: Sequence[str]) -> tuple[str, str, set[str]]:
    known = ["--help", "--partial", "--shards-only"]
    options = {a for a in arguments if a.startswith("-")}
    for option in sorted(options):
        if option not in known:
            raise bad_choice("option", option, known)
    places = [a for a in arguments if not a.startswith("-")]
    if len(places) != 2:
        raise UserError("upload: needs a run directory and a destination (see --help)")
    return places[0], places[1], options
