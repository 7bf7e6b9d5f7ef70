"""Decoding a picture of unknown origin into capped RGB, by stated rules.

JPEG, PNG and WebP by their content, whatever the extension. The header's size is checked before
any decoding. Animated: the first frame. 16-bit: scaled to 8. Transparent: composited on
`image.background`. CMYK, palette, grayscale and the rest: converted to RGB by Pillow. EXIF
orientation is applied, unless its EXIF cannot be read. Cut data and damage that a decoder notices
are errors, never a picture with a grey part.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL import ImageOps

from recaption.config.schema import Image as Rules
from recaption.errors import SampleError

FORMATS = ("JPEG", "PNG", "WEBP")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
PIL.Image.MAX_IMAGE_PIXELS = None  # image.max_source_pixels decides


@dataclass(frozen=True)
class Picture:
    """A decoded picture; `width` and `height` are the source's as displayed, before the cap."""

    rgb: PIL.Image.Image
    width: int
    height: int


def decode(
    content: bytes,
    rules: Rules,
    max_pixels: int,
    min_side: int,
    look: Callable[[PIL.Image.Image], None] | None = None,
) -> Picture:
    """Decode, orient, convert to RGB and scale down to `max_pixels`.

    `look` is shown the whole picture in RGB as it is stored, before it is turned and scaled.
    Raises SampleError with the reason for anything that the rules do not allow.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which is not ours
            return _decode(content, rules, max_pixels, min_side, look)
    except SampleError:
        raise
    except MemoryError:
        raise SampleError("image needs more memory than image.decode_mb") from None
    except PIL.UnidentifiedImageError:
        raise SampleError("not a JPEG, PNG or WebP image") from None
    except Exception as e:  # noqa: BLE001 - decoders raise nearly everything on damaged data
        raise SampleError(f"damaged image: {type(e).__name__}: {e}") from None


def _decode(
    content: bytes,
    rules: Rules,
    max_pixels: int,
    min_side: int,
    look: Callable[[PIL.Image.Image], None] | None,
) -> Picture:
    if not content:
        raise SampleError("empty image")
    with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > rules.max_source_pixels:
            limit = f"image.max_source_pixels={rules.max_source_pixels}"
            raise SampleError(f"image of {width}×{height} pixels is over {limit}")
        aspect = max(width, height) / max(1, min(width, height))
        if aspect > rules.max_aspect:
            raise SampleError(
                f"aspect ratio {aspect:.1f} is over image.max_aspect={rules.max_aspect}"
            )
        scale = min(1.0, math.sqrt(max_pixels / (width * height)))
        if min(width, height) * scale < min_side:
            raise SampleError(
                f"image of {width}×{height} pixels has a side below {min_side} pixels"
            )
        if rules.draft and look is None and image.format == "JPEG" and scale <= 0.5:
            image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
        image.load()
        if look is not None:
            look(to_rgb(image, tuple(rules.background)))
        _turn(image)
        if (image.width > image.height) != (width > height):
            width, height = height, width
        rgb = to_rgb(image, tuple(rules.background))
    return Picture(capped(rgb, max_pixels), width, height)


def _turn(image: PIL.Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as above; metadata that cannot be read says nothing
        pass


def to_rgb(image: PIL.Image.Image, background: tuple[int, ...]) -> PIL.Image.Image:
    """Any mode as 8-bit RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in DEEP:
        levels = np.asarray(image).astype(np.float32)
        scaled = np.clip(np.rint(levels * (255.0 / 65535.0)), 0, 255).astype(np.uint8)
        return PIL.Image.fromarray(scaled).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = PIL.Image.new("RGBA", rgba.size, (*background, 255))
        return PIL.Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def capped(rgb: PIL.Image.Image, max_pixels: int) -> PIL.Image.Image:
    """Scaled down to at most `max_pixels`, in its own aspect ratio."""
    if rgb.width * rgb.height <= max_pixels:
        return rgb
    scale = math.sqrt(max_pixels / (rgb.width * rgb.height))
    size = max(1, int(rgb.width * scale)), max(1, int(rgb.height * scale))
    return rgb.resize(size, PIL.Image.Resampling.BICUBIC, reducing_gap=2.0)
