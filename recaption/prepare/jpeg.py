"""Decodes JPEGs with libjpeg-turbo, whose warnings tell truncated pictures from whole ones.

Pillow hides these warnings: a truncated scan followed by an end marker becomes a gray area. But libjpeg
also warns of sound pictures (wrong scan parameters that phones write, stray bytes), and reports only
its first warning.
"""

from __future__ import annotations

import re

import numpy as np
import PIL.Image
import simplejpeg

from recaption.errors import SampleError

EARLY = "damaged image: the JPEG's data end early"
MARKER = re.compile(rb"\xff+[^\x00\xff]")
SEQUENTIAL, RESTARTS, END, SCAN = (0xC0, 0xC1), range(0xD0, 0xD8), 0xD9, 0xDA
TEXTS = (*range(0xE0, 0xF0), 0xFE)  # markers of application segments and comments
FILLINGS = bytes(64), bytes([0xAA]) * 64


def read(content: bytes, image: PIL.Image.Image, step: int) -> PIL.Image.Image | None:
    """The pixels of an opened JPEG at 1/step of its sides; None if Pillow has to decode it.

    Raises SampleError if the data end before the picture is complete.
    """
    colors = "CMYK" if image.mode == "CMYK" else "RGB"
    width, height = -(-image.width // step), -(-image.height // step)
    least = {"min_width": width, "min_height": height} if step > 1 else {}
    try:
        pixels = simplejpeg.decode_jpeg(content, colors, **least)
    except ValueError as e:
        if _tells_early_end(e) or _ends_early(content, colors):
            raise SampleError(EARLY) from None
        try:
            pixels = simplejpeg.decode_jpeg(content, colors, **least, strict=False)
        except ValueError:
            return None
    if pixels.shape[:2] != (height, width):
        return None
    raw = "CMYK;I" if colors == "CMYK" else colors  # inverted, as Adobe writes CMYK
    return PIL.Image.frombuffer(colors, (width, height), pixels, "raw", raw, 0, 1)


def _tells_early_end(error: ValueError) -> bool:
    said = str(error).lower()
    return "premature end" in said or "instead of rst" in said


def _ends_early(content: bytes, colors: str) -> bool:
    """Whether data are missing although libjpeg's first warning was about something else.

    If so, the decoded picture depends on the bytes that are put behind the data of its scans.
    """
    try:
        simplejpeg.decode_jpeg(_bare(content), colors)
    except ValueError as e:
        if _tells_early_end(e):
            return True
    else:
        return False
    try:
        zeros, others = (
            simplejpeg.decode_jpeg(_bare(content, filling), colors, strict=False)
            for filling in FILLINGS
        )
    except ValueError:
        return False
    return not np.array_equal(zeros, others)


def _bare(content: bytes, filling: bytes = b"") -> bytes:
    """The parts of the file that a decoder needs, with `filling` behind the data of its scans.

    Comments and application data are left out, and sequential scans get correct parameters.
    """
    parts, begun, in_scan, sequential = [content[:2]], 2, False, False
    while marker := MARKER.search(content, begun):
        kind = content[marker.end() - 1]
        if in_scan:
            parts += [content[begun : marker.start()], filling]
        begun, segment = marker.end(), b""
        if kind not in (END, *RESTARTS):
            begun += int.from_bytes(content[begun : begun + 2])
            segment = content[marker.end() : begun]
            in_scan = kind == SCAN
        sequential |= kind in SEQUENTIAL
        if in_scan and segment and sequential:
            segment = segment[:-3] + b"\0\x3f\0"
        if kind not in TEXTS:
            parts += [bytes((0xFF, kind)), segment]
        if kind == END:
            break
    return b"".join(parts)
