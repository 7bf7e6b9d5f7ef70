"""Checks one published shard: compares marker, sidecar and tar with each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from recaption.errors import ShardError
from recaption.run import rows as sidecars
from recaption.run import shared
from recaption.run.addresses import public
from recaption.run.columns import columns_of
from recaption.run.digest import sha256_of
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run
from recaption.run.rows import CAPTIONED, STATES
from recaption.run.scan import marker
from recaption.shard.index import Index, index_shard
from recaption.shard.samples import Sample
from recaption.shard.settings import settings_of
from recaption.shard.text import clean
from recaption.shard.write import Reader, Settings, shown
from recaption.verify.against_source import check_source
from recaption.verify.defect import Findings

Row = dict[str, Any]


def check_shard(paths: RunPaths, run: Run, shard: InputShard, *, against_input: bool) -> Findings:
    """Re-read one shard that has a marker; memory is bounded by its rows and largest member."""
    found = Findings(shard.name)
    try:
        record = marker(paths, shard.name)
        _check_marker(record, run, shard, found)
    except PermissionError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as e:
        found.add("damaged marker", f"cannot be read: {type(e).__name__}: {e}")
        return found
    rows = _read_sidecar(paths, record, run, found)
    tar_is_right = _check_tar_hash(paths, record, found)
    if rows is None:
        return found
    found.samples = len(rows)
    _check_rows(rows, record, found)
    settings = settings_of(run)
    if shared.exists(paths.tar(shard.name)):
        with shared.opened(paths.tar(shard.name)) as file:
            try:
                index = index_shard(file)
            except ShardError as e:
                found.add("damaged tar", str(e))
            else:
                _check_samples(Reader(file), index, rows, settings, found)
    if against_input:
        check_source(paths, run, shard, record, rows, settings, found, whole=tar_is_right)
    return found


def _check_marker(record: dict[str, Any], run: Run, shard: InputShard, found: Findings) -> None:
    if record["fingerprint"] != run.fingerprint:
        found.add("other fingerprint", "its marker was made by a run with another configuration")
    if record["shard"] != shard.name:
        found.add("wrong marker", f"its marker is of {record['shard']}")
    made_from, wanted = public(record["input"]["url"]), public(shard.url)
    if made_from != wanted:
        found.add("wrong marker", f"made from {made_from} instead of {wanted}")
    counts = record["counts"]
    if set(counts) != set(STATES) or sum(counts.values()) != record["samples"]:
        found.add("wrong counts", f"{counts} do not add up to {record['samples']} samples")


def _read_sidecar(
    paths: RunPaths, record: dict[str, Any], run: Run, found: Findings
) -> list[Row] | None:
    path = paths.sidecar(found.shard)
    try:
        digest = sha256_of(path)
    except FileNotFoundError:
        found.add("missing sidecar", f"{path.name} is missing")
        return None
    if digest != record["sidecar"]["sha256"]:
        found.add("changed sidecar", f"{path.name} has another sha256 than its marker says")
    try:
        rows = sidecars.read_rows(path)
    except (pa.ArrowException, OSError, ValueError) as e:
        found.add("damaged sidecar", f"{path.name}: {str(e).splitlines()[0]}")
        return None
    missing = set(columns_of(run).names)
    missing -= set(rows[0]) if rows else missing
    if missing:
        found.add("damaged sidecar", f"{path.name} has no column {', '.join(sorted(missing))}")
        return None
    return rows


def _check_tar_hash(paths: RunPaths, record: dict[str, Any], found: Findings) -> bool:
    path = paths.tar(found.shard)
    try:
        size = shared.size(path)
    except FileNotFoundError:
        found.add("marker without tar", f"{path.name} is missing")
        return False
    if size != record["tar"]["size"]:
        text = f"{path.name} has {size} bytes, its marker says {record['tar']['size']}"
        found.add("changed tar", text)
        return False
    if sha256_of(path) != record["tar"]["sha256"]:
        found.add("changed tar", f"{path.name} has another sha256 than its marker says")
        return False
    return True


def _check_rows(rows: Sequence[Row], record: dict[str, Any], found: Findings) -> None:
    if [row["index"] for row in rows] != list(range(len(rows))):
        found.add("wrong rows", "the sidecar's rows are not the samples 0, 1, 2, … in order")
    captioned = [row["key"] for row in rows if row["status"] == CAPTIONED]
    if len(set(captioned)) < len(captioned):
        found.add("wrong rows", "the sidecar has a captioned key twice")
    unknown = {row["status"] for row in rows} - set(STATES)
    if unknown:
        found.add(
            "wrong rows", f"the sidecar has the states {', '.join(sorted(map(str, unknown)))}"
        )
        return
    counts = sidecars.count_states(list(rows))
    if counts != record["counts"] or len(rows) != record["samples"]:
        text = f"the sidecar has {counts}, the marker says {record['counts']}"
        found.add("wrong counts", text)


def _check_samples(
    reader: Reader, index: Index, rows: Sequence[Row], settings: Settings, found: Findings
) -> None:
    by_key: dict[str, Row] = {}
    for row in rows:
        if settings.captions_only or row["status"] == CAPTIONED:
            by_key.setdefault(row["key"], row)
    wanted, there = list(by_key), [s.key for s in index.samples]
    _check_keys(wanted, there, found)
    if index.skipped:
        found.add("foreign member", f"{index.skipped} members belong to no sample")
    for sample in index.samples:
        if sample.key in by_key:
            _check_sample(reader, sample, by_key[sample.key], settings, found)


def _check_keys(wanted: list[str], there: list[str], found: Findings) -> None:
    missing, extra = _without(wanted, set(there)), _without(there, set(wanted))
    for key in missing:
        found.add("missing sample", f"{key} has a row and is not in the tar")
    for key in extra:
        found.add("extra sample", f"{key} is in the tar and has no such row")
    if not missing and not extra and wanted != there:
        at = next(i for i, (a, b) in enumerate(zip(wanted, there, strict=False)) if a != b)
        found.add("wrong order", f"{there[at]} stands where {wanted[at]} belongs")


def _without(keys: list[str], others: set[str]) -> list[str]:
    return [key for key in keys if key not in others]


def _check_sample(
    reader: Reader, sample: Sample, row: Row, settings: Settings, found: Findings
) -> None:
    texts = {e: [m for m in sample.members if m.extension == e] for e in ("txt", "json")}
    if any(len(members) != 1 for members in texts.values()):
        found.add("wrong members", f"{sample.key} needs exactly one .txt and one .json")
        return
    row = {**shown(row, settings)}
    content = reader.read(texts["txt"][0]) or b""
    if settings.keep_text:
        same = settings.texts.by.decode(content) == clean(row["caption_original"])
    else:
        same = content == clean(row["caption"]).encode()
    if not same:
        found.add("wrong caption", f"{sample.key}.txt is not the sidecar's caption")
    content = reader.read(texts["json"][0]) or b""
    try:
        fields = json.loads(content)
        same = clean(fields["caption"]) == clean(row["caption"])
    except (ValueError, KeyError, TypeError, AttributeError):
        found.add("wrong caption", f"{sample.key}.json has no caption")
        return
    if not same:
        found.add("wrong caption", f"{sample.key}.json has another caption than the sidecar")
    if not settings.captions_only:
        image = reader.read(sample.find(*settings.image_keys))
        if image is None:
            found.add("wrong members", f"{sample.key} has no image")
        elif hashlib.sha256(image).hexdigest() != row["image_hash"]:
            found.add("wrong image", f"{sample.key} has another image than was captioned")
