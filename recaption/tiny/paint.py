"""How shapes and backgrounds become pixels: many styles, so that no single one is learned."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Color = tuple[int, int, int]
Point = tuple[float, float]
Filter = Image.Resampling
Jobs = list[tuple["Outline", Color]]
FILTERS = (Filter.BOX, Filter.BILINEAR, Filter.HAMMING, Filter.BICUBIC, Filter.LANCZOS)


@dataclass(frozen=True)
class Outline:
    """A circle (no points) or a polygon around a centre, in pixels."""

    center: Point
    reach: float
    points: tuple[Point, ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The smallest upright rectangle around it."""
        (x, y), r = self.center, self.reach
        if not self.points:
            return x - r, y - r, x + r, y + r
        xs, ys = zip(*self.points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def at(self, x: float, y: float) -> Outline:
        """The same outline around another centre."""
        dx, dy = x - self.center[0], y - self.center[1]
        return Outline((x, y), self.reach, tuple((px + dx, py + dy) for px, py in self.points))

    def stretched(self, fx: float, fy: float) -> Outline:
        """The same outline in a frame of another size (nearly the same aspect)."""
        center = self.center[0] * fx, self.center[1] * fy
        points = tuple((x * fx, y * fy) for x, y in self.points)
        return Outline(center, self.reach * min(fx, fy), points)

    def scaled(self, fx: float, fy: float, left: float = 0, top: float = 0) -> list[Point]:
        """The corners (for a circle, those of its box) in another frame."""
        x0, y0, x1, y1 = self.box
        corners = self.points or ((x0, y0), (x1, y1))
        return [((x - left) * fx, (y - top) * fy) for x, y in corners]


def outline(rng: np.random.Generator, name: str, radius: float, turn: float) -> Outline:
    """A shape around (0, 0), its point up before the turn."""
    if name == "circle":
        return Outline((0, 0), radius, ())
    if name == "star":
        inner = rng.uniform(0.38, 0.45)
        polar = [(radius * (inner if i % 2 else 1), math.pi * i / 5) for i in range(10)]
    elif name == "triangle" and rng.random() < 0.12:  # as wide and as high as its box
        low = math.hypot(radius, radius), 3 * math.pi / 4
        polar = [(radius, 0.0), low, (low[0], -low[1])]
    elif name == "triangle":
        polar = [(radius, 2 * math.pi * i / 3) for i in range(3)]
    else:  # the radius is half a side, or half a diagonal
        reach = radius * math.sqrt(2) if rng.random() < 0.6 else radius
        polar = [(reach, math.pi * (2 * i + 1) / 4) for i in range(4)]
    points = tuple((r * math.sin(a + turn), -r * math.cos(a + turn)) for r, a in polar)
    return Outline((0, 0), max(r for r, _ in polar), points)


def apart(one: Outline, other: Outline, margin: float, by_box: bool) -> bool:
    """Whether two outlines leave the margin between their circles, or between their boxes."""
    if math.dist(one.center, other.center) >= one.reach + other.reach + margin:
        return True
    if not by_box:
        return False
    a, b = one.box, other.box
    gaps = (b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
    return max(gaps) >= margin


@functools.cache
def _noise() -> Floats:
    """A tile of normal noise, larger than any picture."""
    return np.random.default_rng(7).standard_normal((1200, 1200, 3), dtype=np.float32)


def _add_noise(rng: np.random.Generator, pixels: Floats, sigma: float, gray: bool) -> None:
    """Adds a random piece of the tile."""
    height, width = pixels.shape[:2]
    top, left = rng.integers(0, 1200 - height), rng.integers(0, 1200 - width)
    tile = _noise()[top : top + height, left : left + width]
    pixels += np.float32(sigma) * (tile[..., :1] if gray else tile)


def _background(rng: np.random.Generator, width: int, height: int, color: Color) -> Floats:
    """One colour, or a gradient around it."""
    pixels: Floats = np.empty((height, width, 3), np.float32)
    pixels[:] = color
    if rng.random() < 0.4:
        angle = rng.choice((0, 90, 180, 270)) if rng.random() < 0.3 else rng.uniform(0, 360)
        dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        across = np.linspace(-dx, dx, width, dtype=np.float32)
        down = np.linspace(-dy, dy, height, dtype=np.float32)
        ramp = (across[None, :] + down[:, None]) / np.float32(abs(dx) + abs(dy))
        lift = np.full(3, rng.uniform(5, 25), np.float32)
        if rng.random() < 0.2:
            lift *= rng.uniform(-1, 1, 3).astype(np.float32)
        pixels += ramp[..., None] * lift
    return pixels


def _polygon_mask(one: Outline, soft: float, x0: int, y0: int, w: int, h: int) -> Floats:
    """Coverage from the signed distance to a circle or polygon, at pixel centres."""
    xs = (np.arange(w, dtype=np.float32) + x0 + 0.5)[None, :]
    ys = (np.arange(h, dtype=np.float32) + y0 + 0.5)[:, None]
    if not one.points:
        away = np.hypot(xs - one.center[0], ys - one.center[1]) - one.reach
    else:
        nearest = np.full((h, w), np.inf, np.float32)
        inside = np.zeros((h, w), bool)
        for (ax, ay), (bx, by) in zip(one.points, one.points[1:] + one.points[:1], strict=True):
            ex, ey = bx - ax, by - ay
            px, py = xs - ax, ys - ay
            t = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (px - t * ex) ** 2 + (py - t * ey) ** 2)
            crosses = (ys < ay) != (ys < by)
            inside ^= crosses & (px < py * (ex / ey if ey else 0))
        away = np.where(inside, -1, 1) * np.sqrt(nearest)
    if soft == 0:
        return np.asarray(away <= 0, np.float32)
    return np.asarray(np.clip(0.5 - away / soft, 0, 1), np.float32)


def _drawn_mask(rng: np.random.Generator, one: Outline, x0: int, y0: int, w: int, h: int) -> Floats:
    """Coverage drawn by PIL several times too large, then shrunk (or not enlarged at all)."""
    many = (2, 3, 4, 8) if w * h < 40_000 else (2, 3)
    times = 1 if rng.random() < 0.35 else int(rng.choice(many))
    mask = Image.new("L", (w * times, h * times))
    pen = ImageDraw.Draw(mask)
    corners = one.scaled(times, times, x0, y0)
    if rng.random() < 0.3:
        corners = [(round(x), round(y)) for x, y in corners]
    (pen.polygon if one.points else pen.ellipse)(corners, fill=255)
    if times > 1:
        mask = mask.resize((w, h), FILTERS[rng.integers(len(FILTERS))])
    return np.asarray(np.asarray(mask) / np.float32(255), np.float32)


def _render(
    rng: np.random.Generator, width: int, height: int, ground: Color, jobs: Jobs
) -> Image.Image:
    """Background and shapes at one size."""
    pixels = _background(rng, width, height, ground)
    sigma = rng.uniform(1, 12) if rng.random() < 0.45 else 0.0
    gray, over_all = rng.random() < 0.3, rng.random() < 0.5
    if sigma and not over_all:
        _add_noise(rng, pixels, sigma, gray)
    kind = rng.random()
    soft = 0.0 if rng.random() < 0.4 else rng.uniform(0.8, 1.6)
    for one, color in jobs:
        left, top, right, bottom = one.box
        x0, y0 = max(0, math.floor(left) - 2), max(0, math.floor(top) - 2)
        w = min(width, math.ceil(right) + 2) - x0
        h = min(height, math.ceil(bottom) + 2) - y0
        if kind < 0.3 and w * h < 40_000:
            mask = _polygon_mask(one, soft, x0, y0, w, h)
        else:
            mask = _drawn_mask(rng, one, x0, y0, w, h)
        part = pixels[y0 : y0 + h, x0 : x0 + w]
        part += mask[..., None] * (np.asarray(color, np.float32) - part)
    if sigma and over_all:
        _add_noise(rng, pixels, sigma, gray)
    pixels += 0.5 if rng.random() < 0.7 else 0.0
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def picture(
    rng: np.random.Generator, width: int, height: int, ground: Color, jobs: Jobs
) -> Image.Image:
    """The picture, now and then drawn at another size and resized."""
    if rng.random() > 0.12:
        return _render(rng, width, height, ground, jobs)
    times = rng.uniform(0.7, 2) if width * height < 120_000 else rng.uniform(0.6, 1)
    w, h = min(1100, max(64, round(width * times))), min(1100, max(64, round(height * times)))
    fx, fy = w / width, h / height
    scaled = [(one.stretched(fx, fy), color) for one, color in jobs]
    other = _render(rng, w, h, ground, scaled)
    return other.resize((width, height), FILTERS[rng.integers(len(FILTERS))])
