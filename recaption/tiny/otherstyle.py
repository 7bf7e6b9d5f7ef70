"""Scenes drawn by formulas over the whole picture: a style that training never sees."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .scenes import COLOR_NAMES, RADII, SHAPE_NAMES, SIZES, Scene, Shape, jitter

Floats = NDArray[np.float64]


def _edge(name: str, u: Floats, v: Floats, radius: float, inner: float) -> Floats:
    """Below 1 inside the shape, above 1 outside it; v points down."""
    if name == "circle":
        return np.asarray(np.hypot(u, v) / radius)
    if name == "square":
        return np.asarray(np.maximum(np.abs(u), np.abs(v)) / radius)
    if name == "triangle":
        slanted = math.sqrt(3) / 2 * np.abs(u) - v / 2
        return np.asarray(np.maximum(v, slanted) / (radius / 2))
    length, angle = np.hypot(u, v), np.arctan2(u, -v)
    part = np.abs((angle + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)
    tip, dent = 1.0, inner * np.exp(1j * math.pi / 5)
    normal = (dent - tip) * -1j
    reach = (normal.real * tip) / (normal.real * np.cos(part) + normal.imag * np.sin(part))
    return np.asarray(length / (radius * reach))


def draw(rng: np.random.Generator, count: int, size: tuple[int, int] | None = None) -> Scene:
    """A scene whose shapes keep their circumscribed circles apart; no gap in x is kept."""
    if size is None:
        short = int(rng.integers(96, 400))
        long = min(1024, int(short * rng.uniform(1, 3)))
        size = (long, short) if rng.random() < 0.5 else (short, long)
    width, height = size
    unit = min(size)
    while True:
        background, *colors = (str(c) for c in rng.choice(COLOR_NAMES, 4, replace=False))
        circles: list[tuple[float, float, float]] = []
        for _ in range(200):
            big = rng.random() < 0.5
            r = rng.uniform(*RADII["large" if big else "small"]) * unit
            x = rng.uniform(1.42 * r, width - 1.42 * r)
            y = rng.uniform(1.42 * r, height - 1.42 * r)
            if all(math.hypot(x - a, y - b) > 1.42 * (r + c) for a, b, c in circles):
                circles.append((x, y, r))
            if len(circles) == count:
                break
        if len(circles) == count:
            break
    fine = 3 if rng.random() < 0.5 else 1
    ys, xs = np.mgrid[0 : height * fine, 0 : width * fine]
    xs, ys = (xs + 0.5) / fine, (ys + 0.5) / fine
    canvas = np.empty((height * fine, width * fine, 3))
    canvas[:] = jitter(rng, background)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * math.pi)
        ramp = np.cos(angle) * (xs / width - 0.5) + np.sin(angle) * (ys / height - 0.5)
        canvas += (ramp / np.abs(ramp).max() * rng.uniform(5, 25))[..., None]
    shapes = []
    for (x, y, r), color in zip(circles, colors, strict=False):
        name, turn = str(rng.choice(SHAPE_NAMES)), rng.uniform(-0.3, 0.3)
        u = (xs - x) * math.cos(turn) + (ys - y) * math.sin(turn)
        v = (ys - y) * math.cos(turn) - (xs - x) * math.sin(turn)
        canvas[_edge(name, u, v, r, rng.uniform(0.38, 0.45)) <= 1] = jitter(rng, color)
        kind = SIZES[int(r / unit > 0.16)]
        shapes.append(Shape(name, color, kind, x / width, y / height))
    canvas = canvas.reshape(height, fine, width, fine, 3).mean((1, 3))
    if rng.random() < 0.5:
        canvas += rng.normal(0, rng.uniform(1, 12), canvas.shape)
    image = Image.fromarray(np.clip(np.rint(canvas), 0, 255).astype(np.uint8))
    return Scene(image, tuple(sorted(shapes, key=lambda s: s.x)), background)
