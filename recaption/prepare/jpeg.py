"""JPEGs by libjpeg-turbo with its warnings, which tell half a picture from a whole one.

Pillow passes no warning on: a scan that is cut, with an end mark behind it, is a gray part there.
libjpeg warns of sound pictures, too (parameters of a scan that phones write wrongly, stray bytes),
and tells only the first of its warnings.
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
TEXTS = (*range(0xE0, 0xF0), 0xFE)  # applications' segments and comments
FILLINGS = bytes(64), bytes([0xAA]) * 64


def read(content: bytes, image: PIL.Image.Image, step: int) -> PIL.Image.Image | None:
    """The pixels of an opened JPEG at 1/step of its sides; None where Pillow has to decode it.

    Raises SampleError where the data end before the picture does.
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
    raw = "CMYK;I" if colors == "CMYK" else colors  # Adobe's, as all that is CMYK
    return PIL.Image.frombuffer(colors, (width, height), pixels, "raw", raw, 0, 1)


def _tells_early_end(error: ValueError) -> bool:
    said = str(error).lower()
    return "premature end" in said or "instead of rst" in said


def _ends_early(content: bytes, colors: str) -> bool:
    """Whether data are missing, when libjpeg's first warning was of something else.

    Then the picture depends on what is written behind the data of its scans.
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
    """What a decoder needs of the file, with `filling` behind the data of its scans.

    Texts are left out, and a sequential scan gets the parameters that it has to have.
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
