"""recaption.status: how far runs are, and what is wrong with them."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace

from recaption.cli.terminal import Style, is_live
from recaption.run.record import open_run
from recaption.status.overview import NEEDS_RETRY, Overview, overview
from recaption.status.screen import render

CLEAR = "\033[H\033[2J\033[3J"
INTERVAL = 2.0  # seconds between updates on a terminal
PLAIN_INTERVAL = 60.0
COST = 10  # updates take at most 1/10 of the time


def show(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
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


def _text(seen: list[Overview], options: Namespace) -> str:
    if options.json:
        records = [o.to_json() for o in seen]
        value = records[0] if len(records) == 1 else records
        return json.dumps(value, indent=None if options.watch else 1, ensure_ascii=False) + "\n"
    style = Style(sys.stdout)
    return "\n".join(render(o, style) for o in seen)
