"""Journals: the results for a shard's samples, on disk within seconds.

One file per attempt and shard, created exclusively. Each flush appends one zstd frame, with its
checksum, of JSON lines; the first line of the file is a header. A frame that was cut short by a kill
ends the file. If a frame before the last one is damaged, the journal is ignored from there on. Final
events are read in the order of the journals' creation, and for each sample the earliest one wins.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from recaption.run import shared
from recaption.run.crash_points import crash_point
from recaption.run.publish import disk_errors
from recaption.run.rows import ASKED, STATES, UNREAD

Event = dict[str, Any]
MAGIC = zstandard.FRAME_HEADER
LONGEST_HEADER = 18


class Journal:
    """One attempt's journal of one shard; a context of buffered events and explicit flushes."""

    def __init__(self, path: Path, header: Event) -> None:
        self.path = path
        self.buffer: list[Event] = [{**header, "created": time.time()}]
        with disk_errors(path):
            self.fd = shared.appended(path, new=True)
        self.compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)

    def add(self, event: Event) -> None:
        self.buffer.append(event)

    def flush(self) -> None:
        """Append the buffered events as one frame and bring it to disk."""
        if not self.buffer:
            return
        lines = "\n".join(json.dumps(e, separators=(",", ":")) for e in self.buffer)
        with disk_errors(self.path):
            frame = self.compressor.compress(lines.encode())
            with _unless_removed():
                while frame:
                    frame = frame[os.write(self.fd, frame) :]
                crash_point("journal-written")
                os.fsync(self.fd)
                crash_point("journal-synced")
        self.buffer.clear()

    def close(self) -> None:
        self.flush()
        with _unless_removed():
            os.close(self.fd)


@contextlib.contextmanager
def _unless_removed() -> Iterator[None]:
    """Ignore a stale file handle: the task that published the shard has removed its journals."""
    try:
        yield
    except OSError as e:
        if e.errno != errno.ESTALE:
            raise


@dataclass
class History:
    """The combined contents of all journals of a shard."""

    final: dict[int, Event] = field(default_factory=dict)  # sample index → its deciding event
    strikes: dict[int, int] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)  # sample index → why it was not read
    asked: set[int] = field(
        default_factory=set
    )  # again, for being rejected or failed in the parent
    damaged: list[str] = field(default_factory=list)


def read_history(paths: Iterable[Path], fingerprint: str, digest: str) -> History:
    """Union of the journals that belong to this fingerprint and input digest."""
    journals = []
    history = History()
    for path in paths:
        try:
            content = shared.content(path)
        except FileNotFoundError:
            continue  # published by another attempt in the meantime
        events = _events(content, path, history)
        header = next(events, None)
        if header and header.get("fingerprint") == fingerprint and header.get("digest") == digest:
            journals.append((header["created"], path.name, header["attempt"], list(events)))
    for _, _, attempt, shard_events in sorted(journals, key=lambda j: j[:2]):
        for event in shard_events:
            index = event["i"]
            strikes = max(history.strikes.get(index, 0), event.get("strikes", 0))
            if strikes:
                history.strikes[index] = strikes
            if event["status"] in STATES:
                history.final.setdefault(index, {**event, "attempt": attempt})
            elif event["status"] == UNREAD:
                history.unread[index] = event["reason"]
            elif event["status"] == ASKED:
                history.asked.add(index)
    return history


def _events(content: bytes, path: Path, history: History) -> Iterator[Event]:
    """Events of the frames up to the first incomplete or damaged one; notes if it is damaged."""
    rest = content
    while rest:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            torn = len(rest) < LONGEST_HEADER and rest[:4] == MAGIC[: len(rest)]
            if not torn:
                if not zstandard.get_frame_parameters(rest).has_checksum:
                    raise zstandard.ZstdError("frame without a checksum")
                lines = frame.decompress(rest)
                torn = not frame.eof
            if torn and MAGIC in rest[1:]:
                raise zstandard.ZstdError("cut frame before another one")
        except zstandard.ZstdError as e:
            history.damaged.append(f"{path.name}: {e} at byte {len(content) - len(rest)}")
            return
        if torn:
            return
        yield from map(json.loads, lines.decode().split("\n"))
        rest = frame.unused_data
