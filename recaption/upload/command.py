"""The command: copies the published part of a run to the Hub or to S3."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from recaption.errors import UserError, bad_value
from recaption.run.paths import RunPaths
from recaption.run.record import Run, open_run
from recaption.run.scan import named
from recaption.upload import hub, s3
from recaption.upload.contents import Contents, contents
from recaption.upload.outcome import Outcome

SHOWN = 10
Send = Callable[[str, Contents, str], Outcome]
STORES: dict[str, Send] = {"s3://": s3.upload, "hf://": hub.upload}


def upload(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    send = next((send for scheme, send in STORES.items() if options.dest.startswith(scheme)), None)
    if send is None:
        raise bad_value("DEST", options.dest, f"use s3://BUCKET[/PREFIX] or {hub.FORM}")
    paths, run = open_run(options.run)
    with tempfile.TemporaryDirectory(prefix="recaption-") as scratch:
        whole = contents(paths, run, Path(scratch), shards_only=options.shards_only)
        return _send(paths, run, whole, send, options.dest, partial=options.partial)


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
