"""Recaption WebDataset shards with vision-language models, on one machine or a Slurm array."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from webdataset import DataPipeline

__version__ = "0.2.0"


def pairs(run: Path | str, *, inputs: str | None = None, allow_pipe: bool = False) -> DataPipeline:
    """A webdataset pipeline of a captions-only run's captioned samples, with their source's members.

    A webdataset pipeline, to be decoded, shuffled and batched as any: samples come in the order of
    the source, which webdataset reads; `txt` and `json` are the run's. Nodes and workers of a data
    loader share the published shards out. `inputs` is a pattern for sources that have moved, or whose
    place is not stored since it may hold secrets; `allow_pipe` runs sources that are commands.
    """
    from recaption.shard.pairing import pipeline

    return pipeline(run, inputs, allow_pipe=allow_pipe)
