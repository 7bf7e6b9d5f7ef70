"""Rows of a shard's sidecar (parquet): one per input sample, in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaption.run import shared
from recaption.run.columns import Columns

if TYPE_CHECKING:
    import pyarrow as pa  # takes 0.25 s, so the quick commands do not import this module

STATES = ("captioned", "filtered", "rejected", "failed")
CAPTIONED, FILTERED, REJECTED, FAILED = STATES
ASKED = "asked"  # not a state: rejected or failed, and asked again by a retry
UNREAD = "unread"  # not a state: the source could not be read, and the shard is tried again
DAMAGED = "data.damaged"  # name of a note in sidecars and of a field in markers
REASONS = 5  # logged per shard
REASON_LENGTH = 120
NUMBER = re.compile(r"(?P<field>\{[^{}]*\})|\d+(\.\d+)?")  # but for those in a prompt's field


def schema(columns: Columns) -> pa.Schema:
    """The schema of a sidecar."""
    import pyarrow as pa

    return pa.schema([(c.name, pa.type_for_alias(c.type)) for c in columns.all])


def write_rows(
    path: Path,
    rows: list[dict[str, Any]],
    columns: Columns,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a sidecar; `notes` stand beside the columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows, schema=schema(columns).with_metadata(notes))
    pq.write_table(table, path, compression="zstd")


def read_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(path).to_pylist()
    return rows


def read_table(path: Path, names: list[str] | None = None) -> pa.Table:
    """A sidecar's columns of these names, as far as it has them, or all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pa.BufferReader(shared.content(path))
    return pq.ParquetFile(content, pre_buffer=False).read(names, use_threads=False)


def read_note(path: Path, name: str) -> str | None:
    """The note that write_rows stored under this name, or None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pa.BufferReader(shared.content(path))
    note = (pq.read_schema(file).metadata or {}).get(name.encode())
    return note.decode() if note is not None else None


def frequent_reasons(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The most frequent reasons why samples have no caption: reason → count and an example key."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        if row["status"] != CAPTIONED:
            kind = kind_of(row["status"], row["reason"])
            found.setdefault(kind, [0, row["key"]])[0] += 1
    often = sorted(found.items(), key=lambda item: -item[1][0])
    return dict(often[:REASONS])


def no_better(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Counts of samples that a retry asked again and that are rejected or failed again."""
    return {k: n for k, n in count_states(rows).items() if n and k in (REJECTED, FAILED)}


def kind_of(status: str, reason: str) -> str:
    """A state with its reason without numbers."""
    return f"{status}: {without_numbers(reason)[:REASON_LENGTH]}"


def without_numbers(reason: str) -> str:
    """A reason whose numbers become N, so that those of one kind count together."""
    return NUMBER.sub(lambda m: m["field"] or "N", reason)


def count_states(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Samples per state, every state named."""
    counts = dict.fromkeys(STATES, 0)
    for row in rows:
        counts[row["status"]] += 1
    return counts
