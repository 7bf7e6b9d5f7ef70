"""A tiny watermark classifier, trained here on drawn scenes with and without a text over them.

`python tests/watermarking.py FILE.onnx` writes one; its layout is that of larger ones: an input
N×3×64×64, normalized as ImageNet's, and two logits, clean and watermarked.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from drawing import draw
from PIL import Image, ImageDraw, ImageFont

SIDE = 64
LONGEST = 160  # of the drawn pictures, pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEXTS = ("© stock", "SAMPLE", "preview", "shutter", "photo 123", "do not copy", "getimg.example")
PICTURES = 500
THRESHOLDS = (0.1, 0.3, 0.6, 1.0, 1.6, 2.4)
RIDGE, SHARPNESS = 10.0, 3.0

Array = npt.NDArray[np.float32]


def scene(rng: random.Random, *, marked: bool) -> Image.Image:
    """A drawn scene, with a text over it where it is `marked`."""
    image = Image.open(io.BytesIO(draw(rng, side=LONGEST).content)).convert("RGB")
    return overlaid(image, rng) if marked else image


def overlaid(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with a half transparent text, repeated over all of it."""
    layer = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(layer)
    shorter = min(image.size)
    font = ImageFont.load_default(size=max(14, round(shorter * rng.uniform(0.14, 0.24))))
    text, light = rng.choice(TEXTS), rng.choice((0, 255))
    width = pen.textlength(text, font) + rng.uniform(4, 12)
    height = font.size * rng.uniform(1.3, 1.8)
    y, row = rng.uniform(-height / 2, 0), 0
    while y < image.height:
        x = -rng.uniform(0, width)
        while x < image.width:
            pen.text((x, y), text, (light, light, light, rng.randint(120, 190)), font)
            x += width
        y, row = y + height, row + 1
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def tensor(image: Image.Image) -> Array:
    """A picture as the classifier takes it, by Pillow and numpy alone."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(small, np.float32) / 255
    values: Array = ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
    return np.ascontiguousarray(values, np.float32)


def examples(count: int, seed: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """`count` pictures as tensors, every second one marked."""
    rng = random.Random(seed)
    labels = np.arange(count) % 2
    return np.stack([tensor(scene(rng, marked=bool(label))) for label in labels]), labels


def auc(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Probability that a marked picture scores above a clean one."""
    marked = [s for s, label in zip(scores, labels, strict=True) if label]
    clean = [s for s, label in zip(scores, labels, strict=True) if not label]
    wins = sum((m > c) + (m == c) / 2 for m in marked for c in clean)
    return wins / (len(marked) * len(clean))


def train(path: Path, seed: int = 1) -> Path:
    """Train on drawn scenes, which takes seconds, and write the classifier as ONNX.

    Fixed edge filters at several thresholds, their means over the picture, and a linear layer,
    which is the least-squares solution.
    """
    pictures, labels = examples(PICTURES, seed)
    kernels, thresholds = filters()
    features = np.stack([means(picture, kernels, thresholds) for picture in pictures])
    center, spread = features.mean(0), features.std(0) + 1e-6
    normal = (features - center) / spread
    ridge = RIDGE * np.eye(len(kernels))
    solution = np.linalg.solve(normal.T @ normal + ridge, normal.T @ (2.0 * labels - 1))
    slope = SHARPNESS * solution / spread
    weight, bias = np.stack([-slope, slope]), np.array([1, -1]) * (slope @ center)
    write_onnx(path, kernels, thresholds, weight, bias)
    return path


def filters() -> tuple[Array, Array]:
    """Kernels K×3×3×3 and thresholds of first and second differences of the luminance."""
    steps = np.zeros((4, 3, 3)), np.zeros((4, 3, 3))
    for n, (y, x) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        first, second = steps[0][n], steps[1][n]
        first[1 - y, 1 - x], first[1 + y, 1 + x] = -1, 1
        second[1 - y, 1 - x], second[1, 1], second[1 + y, 1 + x] = -1, 2, -1
    base = np.concatenate([*steps, -steps[0], -steps[1]])
    luminance = np.array([0.299, 0.587, 0.114])
    colored = luminance[None, :, None, None] * base[:, None]
    kernels = np.repeat(colored, len(THRESHOLDS), axis=0).astype(np.float32)
    return kernels, np.tile(np.array(THRESHOLDS, np.float32), len(base))


def means(picture: Array, kernels: Array, thresholds: Array) -> Array:
    """Mean over all places of what a kernel gives above its threshold."""
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    flat = windows.transpose(1, 2, 0, 3, 4).reshape(-1, 27)
    above: Array = np.maximum(flat @ kernels.reshape(len(kernels), 27).T - thresholds, 0).mean(0)
    return above


def write_onnx(
    path: Path,
    kernels: Array,
    thresholds: Array,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike,
    *,
    side: int | str = SIDE,
    batch: int | str = "N",
) -> Path:
    """Convolution, threshold, mean over places, and a linear layer to `len(bias)` outputs."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    constants = {"kernels": kernels, "shift": -thresholds, "weight": weight, "bias": bias}
    nodes = [
        helper.make_node("Conv", ["image", "kernels", "shift"], ["edges"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["edges"], ["above"]),
        helper.make_node("GlobalAveragePool", ["above"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    shape = [batch, kernels.shape[1], side, side]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, np.size(bias)])
    tensors = [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "classifier", [image], [logits], tensors)
    opset = helper.make_opsetid("", 17)
    save_model(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


if __name__ == "__main__":
    train(Path(sys.argv[1]))
