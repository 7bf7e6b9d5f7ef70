"""Finds why an engine died in its log, since vLLM's error only refers to a cause further up."""

from __future__ import annotations

import re
from pathlib import Path

MOST = 4 << 20  # bytes of a log that are read
LONGEST = 400
TRACE = "Traceback (most recent call last):"
# vLLM's prefix of a line: (EngineCore_DP0 pid=7) ERROR 11-26 10:00:00 [core.py:900]
PROCESS = re.compile(r"^(?:\(([^()]*pid=\d+)\) ?)?")
LEVEL = re.compile(r"^(?:ERROR|CRITICAL|WARNING|INFO) \S+ \S+ \[[^\]]*\] ?")
ERROR = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Failure)\b.*")
REFERENCES = ("root cause", "see above")


def with_cause(reason: str, log: Path, offset: int) -> str:
    """`reason`, or, if it only refers to the log, the first error in the log after `offset`."""
    vague = any(text in reason.lower() for text in REFERENCES)
    if not vague and not reason.startswith("exit code"):
        return reason
    cause = first_error(log, offset)
    if not cause:
        return reason
    return cause if vague else f"{reason}: {cause}"


def first_error(log: Path, offset: int) -> str:
    """The error at the end of the log's first traceback; '' if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            lines = file.read(MOST).decode(errors="replace").splitlines()
    except OSError:
        return ""
    tracing: str | None = None
    for line in lines:
        begin = PROCESS.match(line)
        assert begin is not None
        process, text = begin[1] or "", LEVEL.sub("", line[begin.end() :])
        if tracing is None:
            if text.startswith(TRACE):
                tracing = process
        elif process == tracing and ERROR.match(text):
            return text.strip()[:LONGEST]
    return ""
