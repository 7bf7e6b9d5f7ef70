"""Compiled code of engines: one of a node's engines compiles, the others wait for it and load.

It lies in a private folder of the node, one for each model, versions, kind of GPU and settings. A copy
in one file goes to a folder that nodes share (`engine.cache`), from which a fresh node begins. Neither
is trusted: a copy that is another user's or not whole is said and passed over, and an engine that does
not start with what is there leaves it to nobody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from recaption.engine.arguments import arguments_of
from recaption.engine.base import Spec
from recaption.engine.compile_turns import FOLDER, PATIENCE, locked, ready, say
from recaption.engine.families import config_of
from recaption.engine.leftovers import node_folder
from recaption.errors import DiskFull
from recaption.run.publish import publish
from recaption.versions import versions

ROOT = "VLLM_CACHE_ROOT"
HASHED = 16  # characters of a copy's sha256 in its name
PATHS = "vllm_compile_cache.py"  # in which vLLM 0.25 keeps absolute paths
CHUNK = 1 << 20
PATIENCE_SECONDS = 240.0  # several times what a compilation takes; vLLM gives a core 600 to start
KEPT = 60 * 86_400.0  # seconds without an engine that begins with it
OURS = re.compile(r"[0-9a-f]{32}(-[0-9a-f]{16}\.tar|\.[0-9a-f]{32}\.tmp|\.\d+|\.failed)")
T = TypeVar("T")


@dataclass(frozen=True)
class Compiled:
    """Where the code of one kind of engine lies: on this node, and in a folder that nodes share."""

    folder: Path
    key: str
    shared: Path

    def begin(self, patience: float) -> None:
        """Have this engine's processes use it, from a copy where this node has nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        os.utime(self.folder)
        _prune(self.folder.parent)
        with locked(self.folder) as ours:
            if ours and not ready(self.folder).exists():
                self._fetch()
        os.environ |= {
            ROOT: str(self.folder / "vllm"),
            FOLDER: str(self.folder),
            PATIENCE: str(patience),
        }

    def keep(self) -> None:
        """Put a copy into the folder that nodes share, unless it has one."""
        temporary = self.shared / f"{self.key}.{uuid.uuid4().hex}.tmp"
        try:
            self.shared.mkdir(mode=0o700, parents=True, exist_ok=True)
            _prune(self.shared)
            if self._copies() or not ready(self.folder).exists():
                return
            with temporary.open("xb") as file, tarfile.open(fileobj=file, mode="w") as tar:
                tar.add(self.folder, f"{self.folder}", filter=_of_compilers)
            publish(temporary, self.shared / f"{self.key}-{_hash(temporary)}.tar")
        except (OSError, DiskFull) as e:
            say(f"compiled code cannot be kept in engine.cache={self.shared}: {e}")
            with contextlib.suppress(OSError):
                temporary.unlink()

    def forget(self) -> None:
        """No other engine begins with what this one did not start with."""
        with contextlib.suppress(OSError):
            with _failures(self.folder.parent, self.key).open("ab") as file:
                file.write(b"x")
            for copy in self._copies():
                copy.unlink()

    def _copies(self) -> list[Path]:
        return sorted(self.shared.glob(f"{self.key}-*.tar"))

    def _fetch(self) -> None:
        for copy in self._copies():
            try:
                if copy.stat().st_uid != os.geteuid():
                    raise OSError("it is another user's")
                if copy.stem.rpartition("-")[2] != _hash(copy):
                    raise OSError("it is not whole")
                _unpack(copy, self.folder)
            except (OSError, tarfile.TarError, UnicodeError) as e:
                say(f"compiled code in {copy} is not used: {e}")
                continue
            ready(self.folder).touch()
            os.utime(copy)
            return


def compiled_code(spec: Spec, gpu: str) -> Compiled | None:
    """Where an engine's code lies; None if the environment says it, or no place can be made."""
    if os.environ.get(ROOT):
        return None
    engine = spec.config.engine
    arguments = arguments_of(spec, engine.tensor_parallel) | spec.config.model.engine
    arguments["model"] = config_of(spec.model_path)
    content = [versions(), sys.version, gpu, arguments]
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]
    local = node_folder() / f"recaption-compiled-{os.geteuid()}"
    try:
        local.mkdir(mode=0o700, exist_ok=True)
        there = local.lstat()
        if there.st_uid != os.geteuid() or there.st_mode & 0o022 or local.is_symlink():
            raise PermissionError("others may write there")
        if os.statvfs(local).f_flag & os.ST_NOEXEC:
            raise PermissionError("it is mounted so that no code in it is run")
        failures = _failures(local, key)
        times = failures.stat().st_size if failures.exists() else 0
    except OSError as e:
        say(f"compiled code is not shared, {local}: {e}")
        return None
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    shared = Path(engine.cache) if engine.cache else Path(user, "recaption", "compiled")
    return Compiled(local / f"{key}.{times}", key, shared)


def with_code(spec: Spec, gpu: str, start: Callable[[], T]) -> T:
    """Start an engine on this kind of GPU with the code that there is, or what it compiles."""
    code = compiled_code(spec, gpu)
    if code is None:
        return start()
    try:
        code.begin(min(PATIENCE_SECONDS, spec.config.engine.start_seconds / 3))
    except OSError as e:
        say(f"compiled code is not shared: {e}")
        return start()
    try:
        engine = start()
    except Exception:
        code.forget()
        raise
    threading.Thread(target=code.keep, daemon=True).start()
    return engine


def _prune(place: Path) -> None:
    """Remove what no engine has begun with for long, of all that is named as here."""
    for path in place.iterdir():
        if OURS.fullmatch(path.name) and time.time() - path.lstat().st_mtime > KEPT:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _failures(local: Path, key: str) -> Path:
    return local / f"{key}.failed"  # a byte for each


def _of_compilers(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    own = PurePosixPath(member.name).name in ("lock", "ready")
    return member if member.isdir() or (member.isreg() and not own) else None


def _unpack(copy: Path, folder: Path) -> None:
    """The files of a copy, which begins with the folder that it is of, as this folder's."""
    with tarfile.open(copy, "r:") as tar:
        before = ""
        for member in tar:
            before = before or member.name
            path = folder / PurePosixPath(member.name).relative_to(before)
            if ".." in path.parts:
                raise OSError("it leads out of its folder")
            file = tar.extractfile(member)
            if file is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            content = file.read()
            if path.name == PATHS:
                content = content.decode().replace(f"/{before}/", f"{folder}/").encode()
            path.write_bytes(content)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:HASHED]
