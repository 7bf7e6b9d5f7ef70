"""Small copies of pictures, made in child processes, which a malicious picture may crash."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, BinaryIO, cast

import PIL.Image

from recaption.config.schema import Image as Rules
from recaption.engine.parent_death import die_with_parent
from recaption.errors import InputChanged, RecaptionError, SampleError, TaskError
from recaption.prepare import children
from recaption.prepare.picture import decode
from recaption.prepare.worker import READY, limit_memory
from recaption.shard import source
from recaption.shard.index import index_shard
from recaption.shard.samples import STRICT, Layout, Sample
from recaption.shard.write import Reader

SIDE = 256  # pixels; the longer side of a copy
QUALITIES = (74, 35)  # WebP qualities, tried in turn until a copy is small enough
LARGEST = 24_000  # bytes of a copy
PROCESSES = 8
INTERVAL = 1.0  # seconds between checks for children that take too long

Index = dict[str, Sample]


@dataclass(frozen=True)
class Wanted:
    """Pictures of one shard, by key; `path` is a tar, or where else the shard is read."""

    path: str
    keys: tuple[str, ...]
    image_keys: tuple[str, ...]
    rules: Rules
    layout: Layout = STRICT


@dataclass(frozen=True)
class Copy:
    """A small WebP and the size of the picture, or why there is none."""

    content: bytes = b""
    width: int = 0
    height: int = 0
    reason: str = ""


def copies(
    wanted: Sequence[Wanted], seconds: float, megabytes: int, tell: Callable[[int], None]
) -> list[list[Copy]]:
    """A copy for every key of every shard; `tell` hears how many pictures are done.

    A picture that takes longer than `seconds` or ends its process gets that as its reason, and
    the others of its shard are made without it.
    """
    made: dict[tuple[int, int], Copy] = {}
    lost = Copy()
    # A group whose process died is tried again picture by picture.
    jobs = [(n, tuple(range(len(w.keys)))) for n, w in enumerate(wanted)]
    jobs.reverse()
    if not jobs:
        return []
    children.CONTEXT.set_forkserver_preload([__name__])
    count = min(PROCESSES, len(os.sched_getaffinity(0)), len(jobs))
    pool = children.Pool(main, (megabytes,), count, seconds)
    try:
        while jobs or any(worker.jobs for worker in pool.workers):
            while jobs and pool.vacancies():
                number, places = jobs.pop()
                one = wanted[number]
                place = replace(one, keys=())
                pool.submit([(place, one.keys[i]) for i in places], (number, places))
            known = pool.connections()
            ready = wait(list(known), INTERVAL)
            outcomes = [pool.receive(known[cast(Connection, c)]) for c in ready]
            for outcome in [*outcomes, *pool.expire()]:
                if outcome is None:
                    continue
                (number, places), result = outcome
                if not isinstance(result, children.Crashed):
                    made.update({(number, i): c for i, c in zip(places, result, strict=True)})
                elif len(places) == 1:
                    made[number, places[0]] = Copy(reason=f"decoding it failed: {result.reason}")
                else:
                    jobs += [(number, (i,)) for i in places]
                tell(len(made))
    except TaskError as e:  # children died repeatedly
        lost = Copy(reason=f"decoding it failed: {e}")
    finally:
        pool.close()
    return [[made.get((n, i), lost) for i in range(len(w.keys))] for n, w in enumerate(wanted)]


def main(connection: Connection, megabytes: int) -> None:
    """Entry point of a child: a shard's pictures in, their copies out."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    PIL.Image.init()
    limit_memory(megabytes)
    connection.send(READY)
    while True:
        try:
            job: list[tuple[Wanted, str]] = connection.recv()
        except EOFError:
            os._exit(0)
        connection.send(_shard(job[0][0], [key for _, key in job]))


def _shard(wanted: Wanted, keys: Sequence[str]) -> list[Copy]:
    try:
        with source.opened(wanted.path) as file:
            index = index_shard(file, wanted.layout, salvage=True)
            samples = {sample.key: sample for sample in index.samples}
            return [_copy(wanted, file, samples, key) for key in keys]
    except (RecaptionError, OSError, MemoryError) as e:
        return [Copy(reason=f"its shard cannot be read: {e}")] * len(keys)


def _copy(wanted: Wanted, file: BinaryIO, samples: Index, key: str) -> Copy:
    sample = samples.get(key)
    if sample is None:
        return Copy(reason="not in its shard any more")
    try:
        if sample.defect:
            raise SampleError(sample.defect)
        content = Reader(file).read(sample.find(*wanted.image_keys))
        if content is None:
            raise SampleError("no image member")
        picture = decode(content, wanted.rules, SIDE * SIDE * 2, 0)
        return Copy(_encoded(picture.rgb), picture.width, picture.height)
    except (SampleError, InputChanged, OSError) as e:
        return Copy(reason=str(e))


def _encoded(rgb: PIL.Image.Image) -> bytes:
    small: Any = rgb
    for side in (SIDE, SIDE // 2, SIDE // 4):
        small = small.copy()
        small.thumbnail((side, side), PIL.Image.Resampling.BICUBIC)
        for quality in QUALITIES:
            out = io.BytesIO()
            small.save(out, "WEBP", quality=quality, method=0)
            if out.tell() <= LARGEST:
                return out.getvalue()
    return out.getvalue()
