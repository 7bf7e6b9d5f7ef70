"""Finding a model's files once, at launch: a local folder, the shipped one, or a Hub snapshot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaption.config.schema import Model
from recaption.errors import UserError, bad_value
from recaption.model.hashing import hash_model
from recaption.model.hub import NO_SOURCE, snapshot

BUILTIN = "builtin:"


@dataclass(frozen=True)
class ModelFiles:
    """The model files with which a run is frozen; `files` identifies their content."""

    name: str
    path: str | None
    revision: str | None
    files: str

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "path": self.path,
            "revision": self.revision,
            "files": self.files,
        }


def resolve(model: Model, *, needed: bool, rules: int) -> ModelFiles:
    """Resolve model.path or model.repo, downloading a snapshot where it is not there yet.

    `needed` is False for the fake engine, which reads no files; `rules` are the run's. Raises
    UserError when there is no such folder, repository or revision.
    """
    if not needed:
        return ModelFiles(model.name, None, None, "none")
    if model.path:
        folder = model_folder(model.path)
        path = model.path if model.path.startswith(BUILTIN) else str(folder)
        return ModelFiles(model.name, path, None, hash_model(folder, rules))
    if not model.repo:
        raise UserError(NO_SOURCE)
    folder, revision = snapshot(model)
    return ModelFiles(model.name, str(folder), revision, f"{model.repo}@{revision}")


def check_architectures(model: Model, files: ModelFiles) -> None:
    """Raise UserError if the files are of another kind of model than the preset is for."""
    if model.architectures is None or files.path is None:
        return
    config = json.loads((model_folder(files.path) / "config.json").read_bytes())
    found = config.get("architectures") or []
    if found != model.architectures:
        key, value = ("path", model.path) if model.path else ("repo", model.repo)
        raise bad_value(
            f"model.{key}",
            value,
            f"its config.json has the architecture {', '.join(found) or 'none'}, the preset of "
            f"{model.name} is for {', '.join(model.architectures)}; any model will do without "
            "model=…, with a model.name",
        )


def model_folder(path: str) -> Path:
    """Where a model's files are on this machine; `builtin:NAME` is in the package.

    Raises UserError if there is no such folder, or it holds no model.
    """
    if path.startswith(BUILTIN):
        name = path.removeprefix(BUILTIN)
        folder = Path(__file__).parents[1] / name / "model"
    else:
        folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise bad_value("model.path", path, "no such folder")
    if not (folder / "config.json").is_file():
        raise bad_value("model.path", path, "no config.json in this folder")
    return folder
