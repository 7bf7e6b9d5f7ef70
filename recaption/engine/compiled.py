"""Compiled code of engines: one of a node's engines compiles, the others wait for it and load.

It lies in a private folder of the node, one for each model, versions, kind of GPU and settings. A copy
in one file, a tar followed by its hash, goes to a folder that nodes share (`engine.cache`), from which a
fresh node begins. Neither is trusted: a folder that others may write to is not used, a copy that is
another user's or not whole is said and removed, and an engine that does not start with what is there
leaves it to nobody else.
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
from typing import BinaryIO, TypeVar

from recaption.engine.arguments import arguments_of
from recaption.engine.base import Spec
from recaption.engine.compile_turns import FOLDER, PATIENCE, locked, ready, say
from recaption.engine.families import config_of
from recaption.engine.private import check_private, private_folder
from recaption.errors import TaskError
from recaption.run.publish import gone_after, publish
from recaption.versions import versions

ROOT = "VLLM_CACHE_ROOT"
HASHED = 32  # bytes of the sha256 at a copy's end
PATHS = "vllm_compile_cache.py"  # in which vLLM 0.25 keeps absolute paths
CHUNK = 1 << 20
PATIENCE_SECONDS = 240.0  # several times what a compilation takes; vLLM gives a core 600 to start
KEPT = 60 * 86_400.0  # seconds without an engine that begins with it
WRITTEN = 3600.0  # seconds in which a copy is surely written
OURS = re.compile(r"[0-9a-f]{32}(\.tar|\.[0-9a-f]{32}\.tmp|\.\d+|\.failed)")
T = TypeVar("T")


@dataclass(frozen=True)
class Compiled:
    """Where the code of one kind of engine lies: on this node, and in a folder that nodes share."""

    folder: Path
    key: str
    shared: Path

    @property
    def copy(self) -> Path:
        return self.shared / f"{self.key}.tar"

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
            check_private(self.shared)
            _prune(self.shared)
            if self.copy.exists() or not ready(self.folder).exists():
                return
            with gone_after(temporary):
                _pack(self.folder, temporary)
                if not self.copy.exists():
                    publish(temporary, self.copy)
        except (OSError, TaskError) as e:
            say(f"compiled code cannot be kept in engine.cache={self.shared}: {e}")

    def forget(self) -> None:
        """No other engine begins with what this one did not start with."""
        with contextlib.suppress(OSError):
            with _failures(self.folder.parent, self.key).open("ab") as file:
                file.write(b"x")
            self.copy.unlink()

    def _fetch(self) -> None:
        if not os.path.lexists(self.copy):
            return
        try:
            check_private(self.shared)
            with open(os.open(self.copy, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                _check(file)
                _unpack(file, self.folder)
            ready(self.folder).touch()
            os.utime(self.copy)
        except OSError as e:
            say(f"compiled code in {self.copy} is not used: {e}")
        except (tarfile.TarError, ValueError, KeyError) as e:
            say(f"compiled code in {self.copy} is not used and removed: {e}")
            with contextlib.suppress(OSError):
                self.copy.unlink()


def compiled_code(spec: Spec, gpu: str) -> Compiled | None:
    """Where an engine's code lies; None if the environment says it, or no place can be made."""
    if os.environ.get(ROOT):
        return None
    engine = spec.config.engine
    arguments = arguments_of(spec, engine.tensor_parallel) | spec.config.model.engine
    arguments["model"] = config_of(spec.model_path)
    content = [versions(), sys.version, gpu, arguments]
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]
    try:
        local = private_folder()
        if os.statvfs(local).f_flag & os.ST_NOEXEC:
            raise PermissionError(f"{local} is mounted so that no code in it is run")
        failures = _failures(local, key)
        times = failures.stat().st_size if failures.exists() else 0
    except OSError as e:
        say(f"compiled code is not shared: {e}")
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
        if OURS.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # another one prunes, too
                age = time.time() - path.lstat().st_mtime
                if age > (WRITTEN if path.suffix == ".tmp" else KEPT):
                    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _failures(local: Path, key: str) -> Path:
    return local / f"{key}.failed"  # a byte for each


def _of_compilers(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    own = PurePosixPath(member.name).name in ("lock", "ready")
    return member if member.isdir() or (member.isreg() and not own) else None


def _pack(folder: Path, copy: Path) -> None:
    with copy.open("x+b") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.add(folder, f"{folder}", filter=_of_compilers)
        file.seek(0)
        file.write(hashlib.file_digest(file, "sha256").digest())


def _check(file: BinaryIO) -> None:
    """Raise ValueError unless an open copy is ours and whole; leave it at its begin."""
    there = os.fstat(file.fileno())
    if there.st_uid != os.geteuid():
        raise ValueError("it is another user's")
    digest, left = hashlib.sha256(), there.st_size - HASHED
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    if file.read() != digest.digest():
        raise ValueError("it is not whole")
    file.seek(0)


def _unpack(file: BinaryIO, folder: Path) -> None:
    """The files of a copy, which begins with the folder that it is of, as this folder's, or none."""
    written: list[Path] = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            before = ""
            for member in tar:
                before = before or member.name
                path = folder / PurePosixPath(member.name).relative_to(before)
                if ".." in path.parts:
                    raise ValueError("it leads out of its folder")
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    written.append(path)
                    path.write_bytes(_moved(path, content.read(), before, folder))
                elif member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    raise ValueError(f"{member.name} is neither a file nor a folder")
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _moved(path: Path, content: bytes, before: str, folder: Path) -> bytes:
    """A file's content with the paths in the folder where it lies now."""
    if path.name != PATHS:
        return content
    return content.decode().replace(f"/{before}/", f"{folder}/").encode()
