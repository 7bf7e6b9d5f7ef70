"""Loads a run's shards in the ways that trainers do.

A child process does this, because the loaders' C++ threads may crash their process, even when it ends.

Results: `ok`, every captioned sample loads; `warn`, it does not all load, for a reason that lies in the
source; `fail`, it does not load, and that is a defect of the run; `skipped`, the package is missing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from recaption.engine.parent_death import die_with_parent
from recaption.run import shared
from recaption.run.paths import RunPaths
from recaption.run.record import Run
from recaption.run.scan import RunState

OK, WARN, FAIL, SKIPPED = "ok", "warn", "fail", "skipped"
SHARDS = 8  # that are loaded, evenly spaced, at most
FIRST = 5  # samples from which `datasets` infers what a sample looks like
OPEN_CLIP_IMAGES = ("jpg", "png", "jpeg", "webp")


@dataclass(frozen=True)
class Loaded:
    """The result of one way to load a run."""

    result: str
    text: str
    samples: int = 0  # that it read


@dataclass(frozen=True)
class _Shards:
    files: list[str]
    samples: int
    captions_only: bool


def check_loaders(
    paths: RunPaths, run: Run, state: RunState, damaged: set[str]
) -> dict[str, Loaded]:
    """Load published shards that are not `damaged` with webdataset, `datasets`, and open_clip's rules."""
    sizes = {
        name: size
        for name, size in state.sizes(run).items()
        if name not in damaged and shared.exists(paths.tar(name))
    }
    filled = [name for name, size in sizes.items() if size]
    if not filled:
        return dict.fromkeys(WAYS, Loaded(WARN, "no sound published shard has a captioned sample"))
    step = max(1, -(-len(filled) // SHARDS))
    chosen = filled[::step]
    shards = _Shards(
        [str(paths.tar(name)) for name in chosen], sum(sizes[n] for n in chosen), run.captions_only
    )
    return _in_a_child(shards)


def _in_a_child(shards: _Shards) -> dict[str, Loaded]:
    """The result of each way; if the child died, the way that it was at has failed."""
    command = [sys.executable, "-c", f"import {__name__} as loaders; loaders.main()"]
    try:
        child = subprocess.run(
            command,
            input=json.dumps(asdict(shards)),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    except OSError as e:
        reason = f"no process could be started for it: {e.strerror}"
        return {name: Loaded(SKIPPED, reason) for name in WAYS}
    found = {
        name: Loaded(**loaded)
        for name, loaded in zip(WAYS, map(json.loads, child.stdout.splitlines()), strict=False)
    }
    died = Loaded(FAIL, f"the process that it loaded in ended with {child.returncode}")
    for name in [name for name in WAYS if name not in found]:
        found[name] = died
        died = Loaded(SKIPPED, "not begun: the process had ended")
    return found


def main() -> None:
    """The child: shards on standard input, a line for each way on standard output as it is done."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shards = _Shards(**json.load(sys.stdin))
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # loaders print to stdout, too
    for way in WAYS.values():
        print(json.dumps(asdict(_checked(way, shards))), file=results, flush=True)
    os._exit(0)  # without waiting for loaders' threads


def _checked(way: Callable[[_Shards], Loaded], shards: _Shards) -> Loaded:
    try:
        return way(shards)
    except ImportError as e:
        return Loaded(SKIPPED, f"not installed: {e.name}")
    except Exception as e:  # noqa: BLE001 - whatever a loader raises is what is asked for here
        what = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
        causes = _causes(shards)
        return Loaded(WARN, f"{causes} ({what})") if causes else Loaded(FAIL, what)


def _webdataset(shards: _Shards) -> Loaded:
    # webdataset imports torch if it is installed, which takes two seconds, and reads the same without it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import webdataset
    finally:
        del sys.modules["torch"]
    count = 0
    for path in shards.files:
        with open(path, "rb") as file:
            stream = [{"url": path, "stream": file}]
            files = webdataset.tariterators.tar_file_expander(stream)
            for sample in webdataset.tariterators.group_by_keys(files):
                count += "txt" in sample and "json" in sample
    return _counted(count, shards)


def _datasets(shards: _Shards) -> Loaded:
    from datasets import load_dataset

    files = {"train": shards.files}
    dataset = load_dataset("webdataset", data_files=files, split="train", streaming=True)
    count = 0
    for sample in dataset:
        count += isinstance(sample["txt"], str) and isinstance(sample["json"], dict)
    return _counted(count, shards)


def _open_clip(shards: _Shards) -> Loaded:
    """open_clip_train/data.py: group by key, keep what has an image and .txt, decode by Pillow."""
    if shards.captions_only:
        return Loaded(WARN, "caption-only shards have no images: join them with their source")
    count = without = 0
    for sample in _samples(shards):
        with_image = any(sample.get(extension) for extension in OPEN_CLIP_IMAGES)
        count += with_image and "txt" in sample
        without += not with_image
    if without and count + without == shards.samples:
        ignored = f"{without} samples have their image under an extension it ignores"
        return Loaded(WARN, ignored, count)
    return _counted(count, shards)


WAYS = {"webdataset": _webdataset, "datasets": _datasets, "open_clip": _open_clip}


def _counted(count: int, shards: _Shards) -> Loaded:
    text = f"{count} samples of {len(shards.files)} shards"
    if count == shards.samples:
        return Loaded(OK, text, count)
    return Loaded(FAIL, f"{text}, {shards.samples} expected", count)


def _samples(shards: _Shards) -> Iterator[dict[str, bytes]]:
    """Samples by webdataset's and open_clip's rule: the key ends at the base name's first dot."""
    for path in shards.files:
        key, sample = "", dict[str, bytes]()
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                folder, slash, base = info.name.rpartition("/")
                stem, _, extension = base.partition(".")
                if f"{folder}{slash}{stem}" != key or extension.lower() in sample:
                    if sample:
                        yield sample
                    key, sample = f"{folder}{slash}{stem}", {}
                file = tar.extractfile(info)
                sample[extension.lower()] = file.read() if file else b""
        if sample:
            yield sample


def _causes(shards: _Shards) -> str:
    """Known properties of the source that make loaders fail; empty if there are none."""
    members: list[set[str]] = []
    kinds: dict[str, set[str]] = {}
    first: dict[str, str] = {}
    for number, sample in enumerate(_samples(shards)):
        if foreign := [e for e in sample if e.endswith("txt") and not _is_utf8(sample[e])]:
            return f"the source has a .{foreign[0]} that is not UTF-8"
        if number < FIRST:
            members.append(set(sample))
        try:
            fields = json.loads(sample.get("json", b"{}"))
        except ValueError:
            return ""
        for path, kind in _fields(fields):
            kinds.setdefault(path, set()).add(kind)
            if number < FIRST:
                first.setdefault(path, kind)
    if any(found != members[0] for found in members):
        differing = sorted(set[str]().union(*members) - members[0].intersection(*members))
        return f"the first samples differ in their members: {', '.join(differing)}"
    mixed = sorted(p for p, found in kinds.items() if len(found) > 1 or "null" in found)
    if mixed:
        return f"the source's JSON field {mixed[0]} is {' or '.join(sorted(kinds[mixed[0]]))}"
    late = sorted(set(kinds) - set(first))
    if late:
        return f"the source's JSON field {late[0]} is not in the first samples"
    if "npy" in set().union(*members) or "pyd" in set().union(*members):
        return "the source has members that only some loaders decode"
    return ""


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every field's path and JSON type."""
    names = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string"}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(inner, f"{path}.{key}" if path else key)
        if not value:
            yield path, "empty object"
    elif isinstance(value, list):
        yield path, "list"
        for inner in value:
            yield from _fields(inner, f"{path}[]")
    else:
        yield path, names.get(type(value), "number")
