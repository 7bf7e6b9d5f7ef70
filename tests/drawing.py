"""Scenes drawn by the tiny model's rules, with the truth about them, and shards of them.

Shares no code with the model's training, so that a test of its captions proves more than that two
halves of one program agree.
"""

from __future__ import annotations

import io
import json
import math
import random
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLORS = {
    "red": (217, 35, 35),
    "green": (37, 155, 55),
    "blue": (45, 75, 215),
    "yellow": (238, 217, 45),
    "purple": (136, 45, 165),
    "orange": (242, 135, 25),
    "black": (17, 17, 17),
    "white": (242, 242, 242),
}
KINDS = ("circle", "square", "triangle", "star")
SIZES = {"small": (0.09, 0.14), "large": (0.19, 0.28)}  # radius by the shorter side
STYLES = ("plain", "noisy", "gradient")
FORMATS = ("JPEG", "WEBP", "PNG")
EXTENSIONS = ("jpg", "jpeg", "png", "webp")
SHORTEST, LONGEST, ASPECT = 96, 1024, 3.0
TURN = 0.3  # rad
SPREAD = 20  # per channel
GAP = 0.02  # between shapes and to the edge, by the shorter side
ORDER = 0.08  # least distance of two centers along x, by the width: left and right are plain
FINE = 4  # supersampling where edges are anti-aliased
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")


@dataclass(frozen=True)
class Shape:
    """One drawn shape; `x` and `y` are its center's place, 0 to 1 from the top left."""

    kind: str
    color: str
    size: str
    x: float
    y: float

    @property
    def place(self) -> str:
        return f"{ROWS[min(2, int(self.y * 3))]} {COLUMNS[min(2, int(self.x * 3))]}"


@dataclass(frozen=True)
class Picture:
    """A drawn picture's file and the truth about it; shapes from left to right."""

    content: bytes
    width: int
    height: int
    shapes: tuple[Shape, ...]
    background: str

    @property
    def names(self) -> list[tuple[str, str]]:
        """Color and kind of every shape."""
        return [(s.color, s.kind) for s in self.shapes]


@dataclass(frozen=True)
class Sample:
    """A sample as it goes into a shard; `picture` is None where it has no drawn one."""

    key: str
    members: Mapping[str, bytes]  # by extension, in the order of the shard
    picture: Picture | None = None


def draw(rng: random.Random, *, shapes: int | None = None, side: int | None = None) -> Picture:
    """A random scene; `shapes` is their number (1 to 3), `side` bounds the longer side in pixels."""
    width, height = _size(rng, side or LONGEST)
    background = rng.choice(list(COLORS))
    image = _background(rng, width, height, background)
    truth = []
    for kind, size, radius, x, y in _places(rng, width, height, shapes or rng.randint(1, 3)):
        color = rng.choice([c for c in COLORS if c != background])
        outline = _outline(rng, kind)
        _paint(image, outline, radius, x, y, _near(rng, color), smooth=rng.random() < 0.7)
        truth.append(Shape(kind, color, size, x / width, y / height))
    truth.sort(key=lambda s: s.x)
    content = _encode(rng, image)
    return Picture(content, width, height, tuple(truth), background)


def draw_samples(
    count: int, seed: int, *, side: int | None = None, plain: bool = False, name: str = "scene"
) -> list[Sample]:
    """`count` samples; unless `plain`, some without .txt or .json, some with further members.

    Keys are unique among shards of different names, some in folders; half of the scenes have one
    shape.
    """
    rng = random.Random(seed)
    samples = []
    for i in range(count):
        picture = draw(rng, shapes=1 if i % 2 == 0 else None, side=side)
        members = {rng.choice(EXTENSIONS): picture.content}
        key = f"{name}_{i:05d}"
        if plain or rng.random() < 0.8:
            members["txt"] = f"alt text {i} of {name}".encode()
        if plain or rng.random() < 0.8:
            members["json"] = json.dumps(
                {"caption": f"json {i}", "id": i, "nothing": None}
            ).encode()
        if not plain:
            if rng.random() < 0.3:
                members["cls"] = str(i % 10).encode()
            if rng.random() < 0.2:
                members["npy"] = array_bytes(i)
            if rng.random() < 0.2:
                key = f"part{i % 3}/deep/{key}"
            order = list(members.items())
            rng.shuffle(order)
            members = dict(order)
        samples.append(Sample(key, members, picture))
    return samples


def array_bytes(number: int) -> bytes:
    """A .npy file."""
    file = io.BytesIO()
    np.save(file, np.arange(number % 7 + 1, dtype=np.float32))
    return file.getvalue()


def write_shard(path: Path, samples: Iterable[Sample]) -> Path:
    """Write samples as an uncompressed tar, members in their order."""
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            for extension, content in sample.members.items():
                info = tarfile.TarInfo(f"{sample.key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(
    folder: Path, shards: int, samples: int, *, side: int | None = None, plain: bool = False
) -> dict[str, list[Sample]]:
    """Write `shards` shards of `samples` scenes each as 00000.tar …; returns what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for number in range(shards):
        name = f"{number:05d}"
        content = draw_samples(samples, 1000 + number, side=side, plain=plain, name=f"s{name}")
        write_shard(folder / f"{name}.tar", content)
        made[f"{name}.tar"] = content
    return made


def _size(rng: random.Random, limit: int) -> tuple[int, int]:
    """Mostly small pictures, so that tests are quick; some up to `limit`."""
    high = limit if rng.random() < 0.1 else min(limit, 288)
    longer = rng.randint(SHORTEST, high)
    shorter = rng.randint(max(SHORTEST, math.ceil(longer / ASPECT)), longer)
    return (longer, shorter) if rng.random() < 0.5 else (shorter, longer)


def _places(
    rng: random.Random, width: int, height: int, count: int
) -> Iterator[tuple[str, str, float, float, float]]:
    """Kind, size, radius and center (pixels) of `count` shapes that neither overlap nor touch."""
    unit = min(width, height)
    while True:
        placed: list[tuple[str, str, float, float, float]] = []
        for _ in range(60):
            size = rng.choice(list(SIZES))
            radius = unit * rng.uniform(*SIZES[size])
            edge = radius + GAP * unit
            x, y = rng.uniform(edge, width - edge), rng.uniform(edge, height - edge)
            free = all(
                math.dist((x, y), (ox, oy)) > radius + other + GAP * unit
                and abs(x - ox) > ORDER * width
                for _, _, other, ox, oy in placed
            )
            if free:
                placed.append((rng.choice(KINDS), size, radius, x, y))
            if len(placed) == count:
                yield from placed
                return


def _outline(rng: random.Random, kind: str) -> list[tuple[float, float]]:
    """Corners on a circle of radius 1, or a circle as a fine polygon; rotated."""
    turn = rng.uniform(-TURN, TURN)
    if kind == "star":
        inner = rng.uniform(0.38, 0.45)
        corners = [(inner if i % 2 else 1.0, i * math.pi / 5) for i in range(10)]
    else:
        number = {"circle": 90, "square": 4, "triangle": 3}[kind]
        start = math.pi / 4 if kind == "square" else 0.0
        corners = [(1.0, start + i * math.tau / number) for i in range(number)]
    return [(r * math.sin(a + turn), -r * math.cos(a + turn)) for r, a in corners]


def _paint(
    image: Image.Image,
    outline: Sequence[tuple[float, float]],
    radius: float,
    x: float,
    y: float,
    color: tuple[int, int, int],
    *,
    smooth: bool,
) -> None:
    fine = FINE if smooth else 1
    left, top, side = int(x - radius) - 1, int(y - radius) - 1, 2 * math.ceil(radius) + 4
    mask = Image.new("L", (side * fine, side * fine))
    corners = [((x + u * radius - left) * fine, (y + v * radius - top) * fine) for u, v in outline]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    image.paste(color, (left, top), mask.reduce(fine) if smooth else mask)


def _background(rng: random.Random, width: int, height: int, color: str) -> Image.Image:
    pixels = np.empty((height, width, 3), np.float32)
    pixels[:] = _near(rng, color)
    style = rng.choice(STYLES)
    if style == "noisy":
        noise = np.random.default_rng(rng.getrandbits(32))
        pixels += noise.normal(0, rng.uniform(2, 12), pixels.shape)
    elif style == "gradient":
        angle = rng.uniform(0, math.tau)
        along = np.linspace(-1, 1, width) * math.cos(angle)
        down = np.linspace(-1, 1, height) * math.sin(angle)
        slope = (along[None, :] + down[:, None]) / math.sqrt(2)
        pixels += slope[:, :, None] * rng.uniform(8, 25)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _near(rng: random.Random, color: str) -> tuple[int, int, int]:
    r, g, b = (min(255, max(0, v + rng.randint(-SPREAD, SPREAD))) for v in COLORS[color])
    return r, g, b


def _encode(rng: random.Random, image: Image.Image) -> bytes:
    file = io.BytesIO()
    match rng.choice(FORMATS):
        case "PNG":
            image.save(file, "PNG", compress_level=1)
        case "WEBP":
            image.save(file, "WEBP", quality=rng.randint(80, 100), method=0)
        case _:
            image.save(file, "JPEG", quality=rng.randint(80, 100))
    return file.getvalue()
