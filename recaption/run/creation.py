"""A run directory comes into being: its folders, then run.json, by whoever is first."""

from __future__ import annotations

import uuid

from recaption.errors import bad_value
from recaption.run import shared
from recaption.run.folders import make_folders
from recaption.run.paths import RunPaths
from recaption.run.record import Run, write_run


def create(paths: RunPaths, run: Run, group: str | None = None) -> bool:
    """Make a run directory; False if it became one in the meantime.

    Raises UserError when it holds foreign tars or cannot be written.
    """
    refuse_foreign(paths)
    try:
        paths.root.parent.mkdir(parents=True, exist_ok=True)
        make_folders(paths, group)
        return write_run(paths, run, uuid.uuid4().hex)
    except OSError as e:
        reason = f"cannot be written: {e.strerror or e}"
        raise bad_value("output.dir", paths.root, reason) from None


def refuse_foreign(paths: RunPaths) -> None:
    """Raise UserError for a folder that is no run and holds tars, or cannot be read."""
    try:
        names = shared.names(paths.root)
    except FileNotFoundError:
        return
    except OSError as e:
        raise bad_value("output.dir", paths.root, f"cannot be used: {e.strerror}") from None
    tars = sorted(n for n in names if n.endswith(".tar"))
    if tars:
        reason = f"holds {tars[0]} but is not a run of recaption; choose another folder"
        raise bad_value("output.dir", paths.root, reason)
