"""Decodes pictures of unknown origin to RGB of limited size, by these rules.

The formats of `image.formats` by their content, whatever the extension. The header's size is
checked before any decoding. Animated: the first frame. 16-bit: scaled to 8. Transparent:
composited on `image.background`. CMYK, palette, grayscale and the rest: converted to RGB by
Pillow. EXIF orientation is applied, unless its EXIF cannot be read. Data that end early and damage
that a decoder cannot get over are errors, never a picture with a gray part.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL import AvifImagePlugin

from recaption.config.schema import Image as Rules
from recaption.errors import SampleError
from recaption.prepare import jpeg
from recaption.prepare.png import without_large_texts

ORIENTATION = 0x0112  # EXIF's
TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
LYING = (5, 6, 7, 8)  # EXIF orientations that swap width and height
STEPS = (8, 4, 2, 1)  # fractions of its sides at which a JPEG can be decoded
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
PIL.Image.MAX_IMAGE_PIXELS = None  # image.max_source_pixels is the limit
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each core has a process already


@dataclass(frozen=True)
class Picture:
    """A decoded picture; `width` and `height` are those of the source as displayed."""

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

    `look` is called with the whole RGB picture as stored, before it is oriented and scaled.
    Raises SampleError with the reason for anything that the rules do not allow.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata, which does not matter here
            warnings.simplefilter("ignore")
            return _decode(content, rules, max_pixels, min_side, look)
    except SampleError:
        raise
    except MemoryError:
        raise SampleError("image needs more memory than image.decode_mb") from None
    except PIL.UnidentifiedImageError:
        raise SampleError(f"not a {_listed(rules.formats)} image") from None
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
    content = without_large_texts(content)
    with PIL.Image.open(io.BytesIO(content), formats=rules.formats) as image:
        width, height = image.size
        scale = _allowed(width, height, rules, max_pixels, min_side)
        drafted = rules.draft and look is None and image.format == "JPEG"
        step = _step(width, height, scale) if drafted else 1
        rgb = to_rgb(_pixels(content, image, step), tuple(rules.background))
        orientation = _orientation(image)
    if look is not None:
        look(rgb)
    if orientation in TURNS:
        rgb = rgb.transpose(TURNS[orientation])
    if orientation in LYING:
        width, height = height, width
    return Picture(capped(rgb, max_pixels), width, height)


def _allowed(width: int, height: int, rules: Rules, max_pixels: int, min_side: int) -> float:
    """The scale at which the model sees a picture; SampleError if the rules reject its size."""
    if width * height > rules.max_source_pixels:
        limit = f"image.max_source_pixels={rules.max_source_pixels}"
        raise SampleError(f"image of {width}×{height} pixels is over {limit}")
    aspect = max(width, height) / max(1, min(width, height))
    if aspect > rules.max_aspect:
        raise SampleError(f"aspect ratio {aspect:.1f} is over image.max_aspect={rules.max_aspect}")
    scale = min(1.0, math.sqrt(max_pixels / (width * height)))
    if min(width, height) * scale < min_side:
        raise SampleError(f"image of {width}×{height} pixels has a side below {min_side} pixels")
    return scale


def _step(width: int, height: int, scale: float) -> int:
    """The largest step in STEPS at which the decoded picture is not smaller than the scaled one."""
    most = min(width // math.ceil(width * scale), height // math.ceil(height * scale))
    return next(step for step in STEPS if step <= most)


def _pixels(content: bytes, image: PIL.Image.Image, step: int) -> PIL.Image.Image:
    if image.format in ("JPEG", "MPO"):
        pixels = jpeg.read(content, image, step)
        if pixels is not None:
            return pixels
        if step > 1:
            image.draft(None, (image.width // step, image.height // step))
    image.load()
    return image


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as above; metadata that cannot be read says nothing
        return 1


def _listed(names: Sequence[str]) -> str:
    """Names as text, such as `JPEG, PNG or WebP`."""
    *others, last = [name.replace("WEBP", "WebP") for name in names]
    return f"{', '.join(others)} or {last}" if others else last


def to_rgb(image: PIL.Image.Image, background: tuple[int, ...]) -> PIL.Image.Image:
    """A picture of any mode as 8-bit RGB."""
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
    """A picture scaled down to at most `max_pixels`, keeping its aspect ratio."""
    if rgb.width * rgb.height <= max_pixels:
        return rgb
    scale = math.sqrt(max_pixels / (rgb.width * rgb.height))
    size = max(1, int(rgb.width * scale)), max(1, int(rgb.height * scale))
    return rgb.resize(size, PIL.Image.Resampling.BICUBIC, reducing_gap=2.0)
