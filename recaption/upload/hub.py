"""To a data set on the Hugging Face Hub: commits of bounded size, a shard and its marker in one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recaption.cli.progress import Progress
from recaption.errors import RecaptionError, UserError, bad_value
from recaption.upload.contents import Contents, File, Shard
from recaption.upload.outcome import Outcome, tried

DEST = re.compile(
    r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?P<folder>(?:/[^/]+)*)/?"
)
FILES = 96  # per commit, at most, but at least one shard
BYTES = 5 << 30
FORM = "hf://datasets/USER/NAME[@BRANCH][/FOLDER]"
HOPELESS = (400, 401, 403, 404)


@dataclass(frozen=True)
class _Batch:
    shards: list[str]
    files: list[File]
    there: int


class Store:
    """A folder of a data set repository."""

    def __init__(self, url: str) -> None:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils.tqdm import disable_progress_bars

        match = DEST.fullmatch(url)
        if not match:
            raise bad_value("DEST", url, f"has the form {FORM}")
        constants.HF_HUB_OFFLINE = False
        disable_progress_bars()
        self.url, self.repo, self.revision = url, match["repo"], match["revision"]
        folder = match["folder"].strip("/")
        self.prefix = f"{folder}/" if folder else ""
        self.api = HfApi(library_name="recaption")
        self.there: dict[str, Any] = {}
        self.made: list[str] = []  # descriptions of what was created

    def open(self) -> None:
        """Find the repository and its branch, or make them, and list what is there."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            self.api.repo_info(self.repo, repo_type="dataset")
        except RepositoryNotFoundError:
            self.api.create_repo(self.repo, repo_type="dataset", private=True)
            self.made.append(f"made the private data set {self.repo}")
        try:
            self.there = self._list()
        except RevisionNotFoundError:
            assert self.revision is not None
            self.api.create_branch(self.repo, branch=self.revision, repo_type="dataset")
            self.made.append(f"made its branch {self.revision}")
            self.there = self._list()

    def has(self, file: File) -> bool:
        """Whether the repository has this file's bytes under its name."""
        found = self.there.get(self.prefix + file.name)
        if found is None or found.size != file.size:
            return False
        if found.lfs:
            return bool(found.lfs.sha256 == file.sha256)
        return bool(found.blob_id == _git_hash(file))

    def commit(self, files: list[File], message: str) -> None:
        """One commit of these files; all of them appear in it, or none."""
        from huggingface_hub import CommitOperationAdd

        for file in files:
            file.check()
        tried(
            lambda: self.api.create_commit(
                self.repo,
                [CommitOperationAdd(self.prefix + file.name, file.path) for file in files],
                repo_type="dataset",
                revision=self.revision,
                commit_message=message,
            ),
            _final,
        )

    def _list(self) -> dict[str, Any]:
        from huggingface_hub import RepoFile
        from huggingface_hub.errors import EntryNotFoundError

        try:
            entries = self.api.list_repo_tree(
                self.repo,
                self.prefix.rstrip("/") or None,
                recursive=True,
                revision=self.revision,
                repo_type="dataset",
            )
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
        except EntryNotFoundError:
            return {}


def upload(url: str, whole: Contents, fingerprint: str) -> Outcome:
    """Send what the repository lacks; UserError if it cannot be used."""
    del fingerprint  # another run need not be refused: history keeps what a commit replaces
    store = Store(url)
    outcome = Outcome()
    try:
        tried(store.open, _final)
    except RecaptionError as e:
        raise UserError(f"DEST={url}: {e}") from None
    outcome.notes += store.made
    first = [file for file in whole.first if not store.has(file)]
    outcome.add(0, len(whole.first) - len(first), 0)
    with Progress(len(whole.names), "shard") as progress:
        for batch in _batches(store, whole, outcome):
            outcome.add(0, batch.there, 0)
            _commit(store, [*first, *batch.files], batch.shards, outcome)
            first = []
            progress.update(len(batch.shards))
            if outcome.hopeless:
                outcome.not_tried = len(whole.names) - progress.done
                break
    if not outcome.failed:
        last = [file for file in (*first, *whole.last) if not store.has(file)]
        outcome.add(0, len(whole.last) - len([f for f in last if f in whole.last]), 0)
        _commit(store, last, [file.name for file in last], outcome)
    return outcome


def _commit(store: Store, files: list[File], what: list[str], outcome: Outcome) -> None:
    if not files:
        return
    try:
        store.commit(files, f"{what[0]} and {len(what) - 1} more" if len(what) > 1 else what[0])
        outcome.add(len(files), 0, sum(file.size for file in files))
    except (RecaptionError, OSError) as e:
        outcome.failed |= dict.fromkeys(what, str(e))


def _batches(store: Store, whole: Contents, outcome: Outcome) -> Iterator[_Batch]:
    """The shards in order, with what is missing of them, in commits of bounded size."""
    batch, size = _Batch([], [], 0), 0
    for name in whole.names:
        try:
            shard: Shard = whole.shard(name)
            missing = [file for file in shard.files if not store.has(file)]
        except (RecaptionError, OSError) as e:
            outcome.failed[name] = str(e)
            continue
        more = sum(file.size for file in missing)
        if batch.files and (len(batch.files) + len(missing) > FILES or size + more > BYTES):
            yield batch
            batch, size = _Batch([], [], 0), 0
        there = batch.there + len(shard.files) - len(missing)
        batch = _Batch([*batch.shards, name], [*batch.files, *missing], there)
        size += more
    yield batch


def _git_hash(file: File) -> str:
    header = b"blob %d\0" % file.size
    return hashlib.sha1(header + file.path.read_bytes(), usedforsecurity=False).hexdigest()


def _final(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = " ".join(str(error).split())
    if status in (401, 403) or ("token" in said.lower() and "login" in said.lower()):
        return f"no access; log in with `hf auth login`, or set HF_TOKEN, with the right to write ({said})"
    return said if status in HOPELESS else ""
