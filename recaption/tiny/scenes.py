"""Random drawn scenes and the captions that describe them (numpy and pillow only)."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import paint

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
COLOR_NAMES = tuple(COLORS)
SHAPE_NAMES = ("circle", "square", "triangle", "star")
SIZES = ("small", "large")
RADII = {"small": (0.09, 0.14), "large": (0.19, 0.28)}
VERTICAL = ("top", "middle", "bottom")
HORIZONTAL = ("left", "center", "right")
MAX_TURN = 0.3
SIDES = (96, 1024)
MAX_ASPECT = 3.0
MIN_GAP = 0.008  # between the centres' x, as a share of the width: ties have no order


@dataclass(frozen=True)
class Shape:
    """One drawn shape; x and y are the centre's place as shares of width and height."""

    name: str
    color: str
    size: str
    x: float
    y: float

    @property
    def place(self) -> str:
        """The ninth of the picture that holds the centre."""
        return f"{VERTICAL[min(2, int(3 * self.y))]} {HORIZONTAL[min(2, int(3 * self.x))]}"


@dataclass(frozen=True)
class Scene:
    """A picture with what it shows, from left to right."""

    image: Image.Image
    shapes: tuple[Shape, ...]
    background: str


def caption_short(scene: Scene) -> str:
    """The caption for the prompt `short`."""
    return " and ".join(f"a {s.color} {s.name}" for s in scene.shapes)


def caption_detailed(scene: Scene) -> str:
    """The caption for the prompt `detailed`."""
    things = [f"a {s.size} {s.color} {s.name} at the {s.place}" for s in scene.shapes]
    return ", ".join([*things, f"on a {scene.background} background"])


def draw_scene(
    rng: np.random.Generator,
    count: int | None = None,
    size: tuple[int, int] | None = None,
    small: bool | None = None,
) -> Scene:
    """Draws one scene; `count` shapes, `size` (width, height) and only small shapes if asked."""
    width, height = size or random_size(rng)
    shapes: list[tuple[Shape, paint.Outline]] | None = None
    while shapes is None:
        number = count or int(rng.choice((1, 2, 3), p=(0.25, 0.3, 0.45)))
        background = str(rng.choice(COLOR_NAMES))
        shapes = _place(rng, number, background, width, height, small)
    shapes.sort(key=lambda pair: pair[0].x)
    jobs = [(outline, jitter(rng, shape.color)) for shape, outline in shapes]
    image = paint.picture(rng, width, height, jitter(rng, background), jobs)
    return Scene(image, tuple(shape for shape, _ in shapes), background)


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """A picture's width and height: small ones more often, since they are quicker to draw."""
    low, high = SIDES
    middle = 320
    pair = (low, middle) if rng.random() < 0.87 else (middle, high)
    short = math.exp(rng.uniform(math.log(pair[0]), math.log(pair[1])))
    aspect = 1.0 if rng.random() < 0.12 else math.exp(rng.uniform(0, math.log(MAX_ASPECT)))
    short = max(low, round(short))
    long = min(high, int(short * aspect))
    return (long, int(short)) if rng.random() < 0.5 else (int(short), long)


def jitter(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    """The named colour, at most 20 off in each channel."""
    red, green, blue = (int(np.clip(c + rng.integers(-20, 21), 0, 255)) for c in COLORS[color])
    return red, green, blue


def _place(
    rng: np.random.Generator,
    number: int,
    background: str,
    width: int,
    height: int,
    small: bool | None,
) -> list[tuple[Shape, paint.Outline]] | None:
    """Shapes that don't overlap and lie inside the picture, or None where there was no room."""
    placed: list[tuple[Shape, paint.Outline]] = []
    colors = [color for color in COLOR_NAMES if color != background]
    by_box = rng.random() < 0.3
    margin = max(0.0, rng.uniform(-0.02, 0.06)) * min(width, height)
    for _ in range(number):
        name = str(rng.choice(SHAPE_NAMES))
        size = "small" if small or rng.random() < 0.5 else "large"
        radius = rng.uniform(*RADII[size]) * min(width, height)
        base = paint.outline(rng, name, radius, rng.uniform(-MAX_TURN, MAX_TURN))
        color = str(rng.choice(colors))
        x0, y0, x1, y1 = base.box
        if x1 - x0 >= width or y1 - y0 >= height:
            return None
        for _ in range(40):
            x, y = rng.uniform(-x0, width - x1), rng.uniform(-y0, height - y1)
            moved = base.at(x, y)
            if all(
                paint.apart(moved, other, margin, by_box) and abs(x / width - shape.x) >= MIN_GAP
                for shape, other in placed
            ):
                placed.append((Shape(name, color, size, x / width, y / height), moved))
                break
        else:
            return None
    return placed


def encode(image: Image.Image, rng: np.random.Generator) -> tuple[bytes, str]:
    """The picture as JPEG, WebP or PNG, and the file name's extension."""
    out = io.BytesIO()
    kind = rng.random()
    quality = int(rng.integers(80, 101))
    if kind < 0.65:
        sampling = int(rng.choice((0, 1, 2), p=(0.25, 0.15, 0.6)))
        image.save(out, "JPEG", quality=quality, subsampling=sampling)
        return out.getvalue(), "jpg"
    if kind < 0.8:
        method = 4 if rng.random() < 0.1 else 0
        image.save(out, "WEBP", quality=quality, method=method)
        return out.getvalue(), "webp"
    image.save(out, "PNG", compress_level=1)
    return out.getvalue(), "png"
