"""A webdataset pipeline of source samples with the captions of a captions-only run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import webdataset as wds
from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys, tar_file_expander

from recaption.errors import ShardError, bad_value
from recaption.run.record import open_run
from recaption.run.rows import CAPTIONED
from recaption.run.scan import scan
from recaption.shard.input_locations import readable
from recaption.shard.settings import settings_of

Sample = dict[str, Any]


@dataclass(frozen=True)
class _Pair:
    """A source shard and the captions-only shard published of it."""

    source: str
    captions: str


def pipeline(root: Path | str, inputs: str | None, *, allow_pipe: bool) -> wds.DataPipeline:
    """A webdataset pipeline over a run's captioned samples; see recaption.pairs."""
    paths, run = open_run(root)
    if not run.captions_only:
        reason = "its shards have pictures and captions already; read them as they are"
        raise bad_value("RUN", paths.root, reason)
    run = readable(run, inputs, allow_pipe=allow_pipe, what="pairs")
    done = scan(paths, run).done
    pairs = [_Pair(s.source, str(paths.tar(s.name))) for s in run.shards if s.name in done]
    settings = settings_of(run)
    join = partial(_joined, settings.image_keys, settings.scattered)
    return wds.DataPipeline(partial(iter, pairs), wds.split_by_node, wds.split_by_worker, join)


def _joined(image_keys: Iterable[str], scattered: bool, pairs: Iterable[_Pair]) -> Iterator[Sample]:
    """Join by key; a damaged source has partial or repeated samples, which have no captions."""
    images = {key.lower() for key in image_keys}
    for pair in pairs:
        told = _captions(pair.captions)
        errors: list[Exception] = []
        samples = _samples(pair.source, errors)
        for sample in _gathered(samples, told) if scattered else samples:
            caption = told.pop(sample["__key__"], None)
            if caption is None:
                continue
            if images.isdisjoint(sample):
                raise ShardError(
                    f"{pair.source}: webdataset reads no picture of {sample['__key__']}, which may be "
                    "a hard link in its tar; recaption.join makes full shards of it"
                )
            yield sample | caption
        if told:
            why = f" ({errors[0]})" if errors else ""
            raise ShardError(
                f"{pair.source}: lacks {len(told)} samples that were captioned, such as "
                f"{next(iter(told))}{why}"
            )


def _captions(path: str) -> dict[str, Sample]:
    """The members of captioned samples, by key."""
    return {
        sample["__key__"]: {k: v for k, v in sample.items() if not k.startswith("__")}
        for sample in _read(path, wds.reraise_exception)
        if json.loads(sample["json"])["recaption_status"] == CAPTIONED
    }


def _read(url: str, handler: Callable[[Exception], bool]) -> Iterator[Sample]:
    """webdataset.tarfile_samples of one shard; closes it at the end."""
    with gopen(url) as stream:
        files = tar_file_expander([{"url": url, "stream": stream}], handler=handler)
        yield from group_by_keys(files, handler=handler)


def _samples(source: str, errors: list[Exception]) -> Iterator[Sample]:
    """What webdataset reads of a shard; what stops it on the way is noted, and matters where a
    captioned sample is missing."""

    def note(error: Exception) -> bool:
        errors.append(error)
        return True

    yield from _read(source, note)


def _gathered(samples: Iterable[Sample], wanted: Iterable[str]) -> Iterator[Sample]:
    """Whole samples from a tar whose members may stand anywhere."""
    whole: dict[str, Sample] = {key: {} for key in wanted}
    for piece in samples:
        if piece["__key__"] in whole:
            whole[piece["__key__"]] |= piece
    yield from (sample for sample in whole.values() if sample)
