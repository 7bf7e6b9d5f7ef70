"""Good, odd and bad pictures, each with what has to become of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

RED, BLUE = (220, 30, 30), (30, 60, 220)
WHITE = (255, 255, 255)
UNKNOWN = "not a JPEG, PNG, WebP, AVIF, GIF or BMP image"
END = b"\xff\xd9"  # of a JPEG
SCAN = b"\xff\xda"


@dataclass(frozen=True)
class Case:
    """A file; `reason` is a piece of why it is rejected, "" where it is captioned.

    `size` is its width and height as displayed, `left` the color that is seen at its left edge.
    """

    name: str
    content: bytes
    reason: str = ""
    size: tuple[int, int] = (64, 48)
    left: tuple[int, int, int] | None = RED


def halves(width: int = 64, height: int = 48) -> Image.Image:
    """Red to the left, blue to the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int, depth: int, color: int, data: bytes, *more: bytes) -> bytes:
    """A PNG from its raw parts; `more` chunks come before the data."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a thousandth of its pixels' size."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png(width, height, 8, 2, data)


def oriented(orientation: int) -> bytes:
    """Stored so that the EXIF orientation makes it red to the left."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = halves()
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(stored, "JPEG", exif=exif, quality=95)


def noticed_jpegs() -> Iterator[tuple[str, bytes]]:
    """Sound pictures of which libjpeg has something to say."""
    whole = encode(halves(), "JPEG", quality=95)
    yield "jpeg with stray bytes", whole[:-2] + b"abc" * 20 + END
    scan = whole.index(SCAN)
    parameters = scan + 2 + int.from_bytes(whole[scan + 2 : scan + 4]) - 3
    wrong = whole[:parameters] + b"\0\0\0" + whole[parameters + 3 :]
    yield "jpeg of a phone that writes wrong parameters of the scan", wrong
    yield "jpeg of a later version", whole.replace(b"JFIF\0\1", b"JFIF\0\7")


def half_jpegs() -> Iterator[tuple[str, bytes]]:
    """Pictures that miss a part, with an end mark behind what is there."""
    noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    image = Image.blend(halves(320, 240), Image.fromarray(noise), 0.05)
    for kind, progressive in {"jpeg": False, "progressive jpeg": True}.items():
        whole = encode(image, "JPEG", quality=95, progressive=progressive)
        start = whole.index(SCAN) + 14
        for percent in (5, 30, 90):
            content = whole[: start + (len(whole) - start) * percent // 100] + END
            yield f"{kind} cut at {percent} %", content
        middle = (start + len(whole)) // 2
        page = b"<!doctype html><html>503</html>\xff\xd9"
        yield f"{kind} with a page inside", whole[:middle] + page
        yield f"{kind} with a zeroed tail", whole[:middle] + bytes(len(whole) - middle - 2) + END
    restarts = encode(image, "JPEG", quality=95, restart_marker_rows=1)
    yield "jpeg with restarts, cut", restarts[: len(restarts) * 3 // 4] + END
    for name, content in noticed_jpegs():
        start = content.index(SCAN) + 14
        cut = content[: start + (len(content) - start) // 2] + END
        yield f"{name}, cut", cut


def good() -> Iterator[Case]:
    """Every kind that is captioned."""
    image = halves()
    yield Case("jpeg", encode(image, "JPEG", quality=95))
    yield Case("jpeg progressive", encode(image, "JPEG", quality=95, progressive=True))
    yield Case("jpeg then rubbish", encode(image, "JPEG", quality=95) + b"rubbish" * 99)
    yield from (Case(name, content) for name, content in noticed_jpegs())
    yield Case("png", encode(image, "PNG"))
    yield Case("webp", encode(image, "WEBP", quality=100))
    yield Case("avif", encode(image, "AVIF", quality=100))
    yield Case("gif", encode(image.quantize(4), "GIF"))
    yield Case("bmp", encode(image, "BMP"))
    yield Case("webp lossless", encode(image, "WEBP", lossless=True))
    for orientation in (1, 2, 3, 4, 5, 6, 7, 8):
        yield Case(f"exif orientation {orientation}", oriented(orientation))
    yield Case("exif orientation 99", oriented(99))
    broken = bytearray(oriented(6))
    place = broken.index(b"Exif\0\0") + 6
    broken[place : place + 26] = b"\xff" * 26
    yield Case("exif that is rubbish", bytes(broken), size=(48, 64), left=None)
    big = oriented(6).replace(b"Exif\0\0MM\0*\0\0\0\x08\0\x01", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    yield Case("exif of 65535 entries", big, size=(64, 48), left=None)

    deep = np.zeros((48, 64), np.uint16)
    deep[:, :32] = 40_000
    yield Case("16 bit gray", encode(Image.fromarray(deep), "PNG"), left=(156, 156, 156))
    rows = b"".join(b"\0" + b"\x80\x00\x20\x00\x40\x00" * 64 for _ in range(48))
    yield Case("16 bit rgb", png(64, 48, 16, 2, zlib.compress(rows)), left=(128, 32, 64))
    yield Case("gray", encode(image.convert("L"), "PNG"), left=None)
    yield Case("1 bit", encode(image.convert("1"), "PNG"), left=None)
    yield Case("palette", encode(image.quantize(4), "PNG"))
    clear = image.convert("RGBA")
    clear.putalpha(0)
    yield Case("wholly transparent", encode(clear, "PNG"), left=WHITE)
    yield Case("wholly transparent webp", encode(clear, "WEBP", lossless=True), left=WHITE)
    half = image.convert("RGBA")
    half.putalpha(128)
    yield Case("half transparent", encode(half, "PNG"), left=(237, 142, 142))
    yield Case("gray and alpha", encode(clear.convert("LA"), "PNG"), left=WHITE)
    palette = image.quantize(4)
    index = palette.getpixel((0, 0))
    yield Case("palette with transparency", encode(palette, "PNG", transparency=index), left=WHITE)
    yield Case("rgb with a transparent color", encode(image, "PNG", transparency=RED), left=WHITE)
    yield Case("cmyk", encode(image.convert("CMYK"), "JPEG", quality=95))
    frames = [image, Image.new("RGB", (64, 48), BLUE)]
    animated = {"save_all": True, "append_images": frames[1:]}
    yield Case("animated webp", encode(frames[0], "WEBP", lossless=True, **animated))
    yield Case("animated avif", encode(frames[0], "AVIF", quality=100, **animated))
    yield Case("animated gif", encode(frames[0], "GIF", **animated))
    yield Case("animated png", encode(frames[0], "PNG", **animated))
    yield Case("photos in one file", encode(frames[0], "MPO", quality=95, **animated))
    yield Case("aspect of 40", encode(halves(1200, 30), "PNG"), size=(1200, 30))
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 1000, zip=True)
    yield Case("png with text", encode(image, "PNG", pnginfo=info))
    data = zlib.compress(b"".join(b"\0" + bytes(RED) * 64 for _ in range(48)))
    for size in (3_000_000, 50_000_000):
        large = zlib.compress(bytes(size))
        texts = {
            "text": chunk(b"zTXt", b"Comment\0\0" + large),
            "profile": chunk(b"iCCP", b"icc\0\0" + large),
            "international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + large),
        }
        for name, text in texts.items():
            yield Case(f"png with a {name} of {size} bytes", png(64, 48, 8, 2, data, text))
    many = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000))) * 100
    yield Case("png with texts of 100 megabytes", png(64, 48, 8, 2, data, many))
    yield Case("png with rubbish for a profile", encode(image, "PNG", icc_profile=b"rubbish"))
    yield Case("jpeg with rubbish for a profile", encode(image, "JPEG", icc_profile=b"no" * 50))


def bad() -> Iterator[Case]:
    """Every kind that is rejected."""
    image = halves()
    whole = {kind: encode(image, kind) for kind in ("JPEG", "PNG", "WEBP")}
    yield Case("empty", b"", "empty image")
    yield Case("html", b"<!doctype html><html>404</html>", UNKNOWN)
    for kind, content in whole.items():
        name = kind.lower()
        yield Case(f"{name} cut in half", content[: len(content) // 2], "damaged image")
        yield Case(f"{name} cut in its header", content[:20], "image")
    progressive = encode(image, "JPEG", progressive=True, quality=95)
    yield Case("progressive jpeg cut", progressive[: len(progressive) * 2 // 3], "damaged image")
    flipped = bytearray(whole["PNG"])
    flipped[-30] ^= 0xFF
    for name, content in half_jpegs():
        yield Case(name, content, "damaged image: the JPEG's data end early")
    for kind, end in {"GIF": b"\0;", "PNG": chunk(b"IEND", b""), "BMP": b"", "AVIF": b""}.items():
        content = encode(image.resize((200, 150)), kind)
        content = content[: len(content) // 3] + end
        yield Case(f"{kind.lower()} cut, with an end", content, "image")
    yield Case("png with a wrong checksum", bytes(flipped), "damaged image")
    yield Case("png without data", png(64, 48, 8, 2, b""), "damaged image")
    yield Case("png with too little data", png(64, 48, 8, 2, zlib.compress(b"\0" * 99)), "damaged")
    yield Case("png of no size", png(0, 48, 8, 2, zlib.compress(b"")), "image")
    yield Case("webp of rubbish", whole["WEBP"][:30] + b"\xa5" * 300, "image")
    for kind in ("TIFF", "PPM", "ICO", "TGA"):
        yield Case(kind.lower(), encode(image, kind), UNKNOWN)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch /tmp/x) system\n"
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    for name, content in {"eps": eps, "svg": svg, "pdf": b"%PDF-1.4\n"}.items():
        yield Case(name, content, UNKNOWN)
    yield Case("1×1", encode(halves(1, 1), "PNG"), "a side below 8 pixels")
    yield Case("flat", encode(halves(64, 7), "PNG"), "a side below 8 pixels")
    yield Case("ribbon", encode(halves(16_000, 16), "PNG"), "aspect ratio 1000.0 is over")
    size = "image of 20000×20000 pixels is over image.max_source_pixels=100000000"
    yield Case("bomb", png(20_000, 20_000, 8, 2, zlib.compress(bytes(99))), size)
    jpeg = bytearray(whole["JPEG"])
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    yield Case("jpeg that says 65000×65000", bytes(jpeg), "is over image.max_source_pixels")
    yield Case("pickle", b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system", "not a")


def corpus() -> list[Case]:
    return [*good(), *bad()]
