"""The copy of a run's chat template in its directory, stored under its hash."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from recaption.errors import TaskError
from recaption.run import publish, shared
from recaption.run.digest import sha256_of
from recaption.run.paths import RunPaths

KEY = "model.chat_template"


def keep_template(paths: RunPaths, identity: dict[str, Any], given: str | None) -> None:
    """Copy the run's template into its directory, unless it is there."""
    place = _place(paths, identity)
    if place is None or given is None or shared.exists(place):
        return
    content = Path(given).read_bytes()
    place.parent.mkdir(exist_ok=True)
    publish.create(place, content, paths.temporary(place, uuid.uuid4().hex))


def kept_template(paths: RunPaths, identity: dict[str, Any]) -> str | None:
    """The run's own copy of its template; None if it has none."""
    place = _place(paths, identity)
    return str(place) if place and shared.exists(place) else None


def template_of(paths: RunPaths, identity: dict[str, Any], given: str | None) -> str | None:
    """The template that a task uses: the one with which the run was made.

    Raises TaskError if neither the run's copy nor the given file is that template.
    """
    place = _place(paths, identity)
    if place is None:
        return given
    for path in (place, Path(given or "")):
        if path.is_file() and sha256_of(path) == place.name:
            return str(path)
    raise TaskError(
        f"{KEY}={given}: is not the file that the run was made with, which had the sha256 "
        f"{place.name}; put that one back, or make another run"
    )


def _place(paths: RunPaths, identity: dict[str, Any]) -> Path | None:
    """The path of the copy."""
    digest = identity.get(KEY)
    return paths.kept(digest.removeprefix("sha256 ")) if digest else None
