"""Models on the Hub: the snapshot of a commit is downloaded once; errors say what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recaption.cli.terminal import is_live
from recaption.config.schema import Model
from recaption.errors import UserError, bad_value

NO_SOURCE = "model.path: a model needs model.path (a folder) or model.repo (on the Hub)"
OTHER_WEIGHTS = ["*.pth", "*.gguf", "original/*", "consolidated*"]
SECONDS = 10.0  # timeout of a question whose answer is not needed


def snapshot_here(model: Model) -> Path | None:
    """The snapshot of model.repo in the Hub library's cache; None if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not model.repo:
        raise UserError(NO_SOURCE)
    try:
        found = snapshot_download(
            model.repo, revision=model.revision, cache_dir=model.cache, local_files_only=True
        )
    except (LocalEntryNotFoundError, OSError):
        return None
    except ValueError as e:
        raise bad_value("model.repo", model.repo, str(e).splitlines()[0]) from None
    return Path(found)


def snapshot(model: Model) -> tuple[Path, str]:
    """The folder and the commit of model.repo at model.revision, downloaded if it is not there.

    Raises UserError with the cause if that fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    assert model.repo is not None
    if not is_live(sys.stderr):
        disable_progress_bars()
    ignore = [*OTHER_WEIGHTS]
    if model.load_format == "dummy":
        ignore += ["*.safetensors", "*.bin", "*.pt"]
    try:
        folder = Path(
            snapshot_download(
                model.repo, revision=model.revision, cache_dir=model.cache, ignore_patterns=ignore
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as e:
        raise _readable(model, e) from None
    _check_whole(folder, model)
    return folder, folder.name


def at_commit(model: Model, frozen: Mapping[str, Any], *, named: bool) -> Model:
    """The model of an existing run, at the commit with which the run was made.

    Prints a line if the branch has moved on since. Raises UserError if the revision that was
    `named` is another commit.
    """
    commit = frozen["revision"]
    if not model.repo or frozen["files"] != f"{model.repo}@{commit}":
        return model
    branch = model.revision or "main"
    newest = _newest(model, branch)
    if newest not in (None, commit):
        if named:
            reason = (
                f"is commit {newest[:12]}, the run was made with {commit[:12]}; leave model.revision "
                "out to go on with that, or choose another output.dir"
            )
            raise bad_value("model.revision", branch, reason)
        print(
            f"model.revision: the run goes on with commit {commit[:12]} that it was made with; "
            f"{branch} of {model.repo} is {newest[:12]} by now"
        )
    return model if named else replace(model, revision=commit)


def _newest(model: Model, branch: str) -> Any:
    """The commit that a branch has now; None if the Hub does not say."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return HfApi().model_info(model.repo or "", revision=branch, timeout=SECONDS).sha
    except (HfHubHTTPError, OSError, ValueError):
        return None
    except Exception as e:
        if type(e).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore"):
            return None  # no network; not every version's errors are OSErrors
        raise


def _readable(model: Model, error: Exception) -> UserError:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo = model.repo
    match error:
        case GatedRepoError():
            why = (
                "is gated: accept its terms at its page on the Hub, and give launch the token of an "
                "account that did (HF_TOKEN, or `hf auth login`)"
            )
        case RevisionNotFoundError():
            return bad_value("model.revision", model.revision, f"{repo} has no such revision")
        case RepositoryNotFoundError():
            why = "no such repository on the Hub, or a private one that HF_TOKEN gives no access to"
        case LocalEntryNotFoundError():
            why = (
                "is not in the cache, and the Hub cannot be reached (no network, or HF_HUB_OFFLINE); "
                "model.path=/folder takes files that are here"
            )
        case _:
            why = f"cannot be downloaded: {str(error).strip().splitlines()[0]}"
    return bad_value("model.repo", f"{repo}@{model.revision}" if model.revision else repo, why)


def _check_whole(folder: Path, model: Model) -> None:
    """Raise UserError if a weight file that the index names is missing."""
    for index in folder.glob("*.index.json"):
        names = set(json.loads(index.read_text())["weight_map"].values())
        missing = sorted(n for n in names if not (folder / n).exists())
        if missing and model.load_format != "dummy" and index.name.startswith("model"):
            raise bad_value(
                "model.repo", model.repo, f"snapshot lacks {missing[0]}; remove {folder}"
            )
