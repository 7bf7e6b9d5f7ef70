"""The keys of what is read and what is written: data, image and output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from recaption.config.key import key

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP")


@dataclass(kw_only=True)
class Data:
    """Input shards and how samples are read from them."""

    shards: Any = key(
        MISSING,
        "Input shards, required: a brace pattern, a glob, a folder of tars, a list, or a .txt "
        "or .list file with one shard per line; local paths, http(s)://, s3:// or hf:// URLs.",
        literal=True,
    )
    range: Any = key(
        None,
        "Positions of the shards to caption in this submission, counted from 0, such as 0-575 "
        "or 0-3,8,10-. Default: all.",
        literal=True,
    )
    name: str | None = key(
        None,
        "Name of the data set, part of the default output folder. Default: the name of the "
        "first shard's folder.",
    )
    max_samples: int | None = key(
        None,
        "Only the first N samples of each shard are read, for a pilot run. Default: all.",
        low=1,
    )
    damaged: str = key(
        "fail",
        "What becomes of a damaged shard: fail makes nothing of it and reports it, salvage "
        "captions the samples that are intact.",
        choices=("fail", "salvage"),
    )
    tries: int = key(
        2,
        "How many times a shard is tried per submission before it counts as failed.",
        low=1,
        high=100,
    )
    outage_seconds: float = key(
        900.0,
        "Seconds for which a store that has answered before may be unreachable; a longer outage"
        " costs the shard a try.",
        was=900.0,
        low=0.0,
    )
    order: str = key(
        "adjacent",
        "How the members of a sample stand in the tar: adjacent, or any, which finds them "
        "wherever they are, as in SA-1B.",
        choices=("adjacent", "any"),
        was="adjacent",
    )
    image_keys: list[str] = key(
        "jpg jpeg png webp avif gif bmp".split(),
        "Extensions of the members that hold a sample's picture; where a sample has several, "
        "the extension listed first wins.",
    )
    text_key: str = key(
        "txt", "Extension of the member that holds the original caption.", was="txt"
    )
    caption_key: str = key(
        "caption",
        "JSON field with the original caption, for samples without such a member; A.B names a "
        "nested field.",
    )
    alarm: float = key(
        0.5,
        "A task stops, and the run is no success, when more than this share (0 to 1) of the "
        "samples was rejected or failed. 1 never stops one.",
        low=0.0,
        high=1.0,
        was=1.0,
    )
    workers: int | None = key(
        None,
        "Preparation processes per task. Default: one per CPU of the task, less one for each "
        "engine and one for the main loop; at least 2, or 1 where there is one CPU.",
        low=1,
        high=512,
    )
    spool: str | None = key(
        None,
        "Folder on the node for copies of remote and compressed shards while they are read. "
        "Default: the node's temporary folder.",
        path=True,
    )
    spool_gb: float = key(64.0, "GiB of disk that these copies may take per task.", low=0.001)
    buffer_mb: int = key(
        1024, "MiB of shared memory per task for prepared pictures that wait for an engine.", low=16
    )
    allow_pipe: bool = key(False, "Accept pipe: shards, whose text is run as a shell command.")


@dataclass(kw_only=True)
class Image:
    """Which pictures are accepted and how they are shown to the model."""

    formats: list[str] = key(
        list(FORMATS),
        "Picture formats that are accepted, told by a file's content and not by its name. "
        "Others are rejected.",
        was=["JPEG", "PNG", "WEBP"],
    )
    max_source_pixels: int = key(
        100_000_000,
        "Pictures with more pixels (width times height) are rejected before they are decoded.",
        low=1,
    )
    max_aspect: float = key(
        50.0,
        "Pictures whose longer side is more than this many times the shorter one are rejected.",
        low=1.0,
        high=200.0,
    )
    background: list[int] = key(
        [255, 255, 255], "Color behind transparent parts, as red, green and blue from 0 to 255."
    )
    draft: bool = key(
        True,
        "Decode a JPEG at 1/2, 1/4 or 1/8 of its sides where that is still as large as the "
        "picture the model sees, which is faster.",
    )
    decode_seconds: float = key(
        30.0,
        "Seconds that the preparation of one picture may take; a picture that takes longer is "
        "rejected.",
        low=0.1,
    )
    decode_mb: int = key(
        1024,
        "MiB of memory that a preparation process may use for its pictures; a picture that "
        "needs more is rejected.",
        low=128,
    )


@dataclass(kw_only=True)
class Output:
    """What is written and where."""

    dir: str = key(
        MISSING,
        "Run directory, in which shards and all records of the run are written. Default: "
        "outputs/DATA/MODEL/PROMPT, by their names.",
        path=True,
    )
    text: str = key(
        "replace",
        "What .txt holds in the output: replace puts the new caption there, keep leaves the "
        "original caption.",
        choices=("replace", "keep"),
    )
    mode: str = key(
        "full",
        "What the output shards hold: full copies whole samples, captions writes captions "
        "alone, one for every input sample.",
        choices=("full", "captions"),
    )
    license: str = key(
        "other", "License named in the data set card, by an identifier such as cc-by-4.0."
    )
    group: str | None = key(
        None, "Unix group that the run's files belong to. Default: the user's.", was=None
    )
