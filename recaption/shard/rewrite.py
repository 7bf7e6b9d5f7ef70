"""Makes a shard from a published one and rows of which fewer are captioned.

The result equals, byte for byte, what write_tar would make of the source and these rows, but the
source is not needed: samples that stay are copied, and caption-only samples follow from their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from recaption.errors import RecaptionError
from recaption.run.rows import CAPTIONED
from recaption.shard import text
from recaption.shard.index import index_shard
from recaption.shard.write import Reader, Settings, own_fields, shown, write_members


def rewrite_tar(
    out: BinaryIO, published: BinaryIO, rows: Sequence[Mapping[str, Any]], settings: Settings
) -> str:
    """Write the shard of `rows`; return its sha256.

    Raises RecaptionError if the published shard lacks a captioned sample.
    """
    return write_members(out, _members(published, rows, settings))


def _members(
    published: BinaryIO, rows: Sequence[Mapping[str, Any]], settings: Settings
) -> Iterator[tuple[str, bytes]]:
    index, reader = index_shard(published), Reader(published)
    there = {sample.key: sample for sample in index.samples}
    wanted: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if settings.captions_only or row["status"] == CAPTIONED:
            wanted.setdefault(row["key"], row)
    for key, row in wanted.items():
        if key not in there:
            raise RecaptionError(f"{key} has a row and is not in the published shard; verify it")
        for member in there[key].members:
            content = reader.read(member) or b""
            if settings.captions_only and member.extension == "json":
                own = own_fields(shown(row, settings), row["caption_original"], settings)
                content = text.merge_json({}, own)
            elif settings.captions_only and not settings.keep_text:
                content = shown(row, settings)["caption"].encode("utf-8", "replace")
            yield f"{key}.{member.extension}", content
