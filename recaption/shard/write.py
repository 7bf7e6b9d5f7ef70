"""Writes an output shard, a pure function of source, sidecar rows and the run's settings."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from recaption.errors import InputChanged
from recaption.run.columns import Columns
from recaption.run.crash_points import crash_point
from recaption.run.rows import CAPTIONED
from recaption.shard import text
from recaption.shard.index import Index
from recaption.shard.rules import Original, Texts
from recaption.shard.samples import Layout, Member, Sample

MODE = 0o444


@dataclass(frozen=True)
class Settings:
    """The part of a run's configuration that shapes its shards."""

    model: str
    columns: Columns
    image_keys: tuple[str, ...]
    caption_key: str
    keep_text: bool
    captions_only: bool
    rules: int = 2  # see run.record.Run
    text_key: str = "txt"
    scattered: bool = False

    @property
    def texts(self) -> Texts:
        return Texts(self.text_key, self.caption_key, self.rules)

    @property
    def layout(self) -> Layout:
        return Layout(self.scattered, links=self.texts.by.links)


class Reader:
    """Member bytes of one indexed shard."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, member: Member | None) -> bytes | None:
        if member is None:
            return None
        self.file.seek(member.offset)
        content = self.file.read(member.size)
        if len(content) != member.size:
            raise InputChanged(f"input changed: ends before byte {member.offset + member.size}")
        return content


def source_text(reader: Reader, sample: Sample, texts: Texts) -> Original:
    """A sample's original caption and its JSON fields."""
    rules = texts.by
    content, record = reader.read(sample.find(texts.text_key)), reader.read(sample.find("json"))
    fields = {} if record is None else rules.fields(record)
    if content is None:
        caption = rules.caption(rules.value(fields, texts.caption_key))
    else:
        caption = rules.decode(content)
    return Original(caption, rules.kept(content, caption or ""), fields)


def write_tar(
    out: BinaryIO,
    source: BinaryIO,
    index: Index,
    rows: Sequence[dict[str, Any]],
    settings: Settings,
) -> str:
    """Write the output shard of `rows`; return its sha256.

    Raises InputChanged if the source's keys or images are no longer those of the rows.
    """
    if [sample.key for sample in index.samples] != [row["key"] for row in rows]:
        raise InputChanged("input changed: its samples are not those of the published sidecar")
    return write_members(out, _all_members(Reader(source), index, rows, settings))


def write_members(out: BinaryIO, members: Iterable[tuple[str, bytes]]) -> str:
    """Write (name, content) as a tar; return its sha256."""
    written, digest = 0, hashlib.sha256()
    for name, content in members:
        for piece in _entry(name, content):
            digest.update(piece)
            written += out.write(piece)
    end = bytes(2 * tarfile.BLOCKSIZE)
    end += bytes(-(written + len(end)) % tarfile.RECORDSIZE)
    digest.update(end)
    out.write(end)
    return digest.hexdigest()


def _all_members(
    reader: Reader, index: Index, rows: Sequence[dict[str, Any]], settings: Settings
) -> Iterator[tuple[str, bytes]]:
    for sample, row in zip(index.samples, rows, strict=True):
        crash_point("in-tar")
        if settings.captions_only or row["status"] == CAPTIONED:
            yield from _members(reader, sample, row, settings)


def _members(
    reader: Reader, sample: Sample, row: Mapping[str, Any], settings: Settings
) -> Iterator[tuple[str, bytes]]:
    row = shown(row, settings)
    original = source_text(reader, sample, settings.texts)
    own = own_fields(row, original.text, settings)
    made = {
        "txt": original.kept if settings.keep_text else row["caption"].encode("utf-8", "replace"),
        "json": text.merge_json({} if settings.captions_only else original.fields, own),
    }
    image = sample.find(*settings.image_keys)
    for member in sample.members:
        extension = member.extension.lower()
        if extension in made:
            yield f"{sample.key}.{extension}", made.pop(extension)
        elif not settings.captions_only:
            content = reader.read(member)
            assert content is not None
            if member is image and hashlib.sha256(content).hexdigest() != row["image_hash"]:
                raise InputChanged(f"input changed: the image of {sample.key} is another one")
            yield f"{sample.key}.{member.extension}", content
    for extension, content in made.items():
        yield f"{sample.key}.{extension}", content


def own_fields(row: Mapping[str, Any], original: str, settings: Settings) -> dict[str, Any]:
    """What we say of a sample in its `.json`."""
    columns = settings.columns
    own = {
        "caption": row["caption"],
        "caption_original": original,
        "recaption_model": settings.model,
        "recaption_prompt": "+".join(columns.prompts),
        **columns.fields(row),
    }
    if settings.captions_only:
        own["recaption_status"] = row["status"]
    for name in columns.scores:
        score = row[name]
        own[name] = -1.0 if score is None else float(f"{score:.7g}")  # the precision of float32
    return own


def shown(row: Mapping[str, Any], settings: Settings) -> Mapping[str, Any]:
    """A row as it appears in a shard: the caption of a filtered sample stays in the sidecar only."""
    return row if row["status"] == CAPTIONED else settings.columns.hidden(row)


def _entry(name: str, content: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), MODE
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    yield content
    yield bytes(-len(content) % tarfile.BLOCKSIZE)
