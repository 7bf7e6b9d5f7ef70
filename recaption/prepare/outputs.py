"""From what an ONNX model gives to one number per picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from recaption.config.onnx import Scorer
from recaption.config.scorers import class_of

Array = npt.NDArray[Any]
MANY_BOXES, FEW_CLASSES = 1000, 512


def table(values: Array, scorer: Scorer) -> Array:
    """N×classes×boxes, float64; without `reduce` all numbers of a picture are classes."""
    if scorer.reduce is None or scorer.class_axis is None:
        return values.astype(np.float64).reshape(len(values), -1, 1)
    classes = np.moveaxis(values.astype(np.float64), scorer.class_axis, 1)
    return classes.reshape(*classes.shape[:2], -1)


def score(boxes: Array, scorer: Scorer) -> float:
    """The score of a picture from its classes×boxes, to seven significant digits."""
    place = class_of(scorer) if len(boxes) > 1 else 0
    if scorer.kind == "softmax":
        shares = np.exp(boxes - boxes.max(axis=0))
        value = float((shares[place] / shares.sum(axis=0)).max())
    else:
        value = float(boxes[place].max())
        if scorer.kind == "sigmoid":
            value = 1 / (1 + math.exp(-value)) if value > -700 else 0.0
    return significant(value)


def significant(score: float) -> float:
    """Seven significant digits, which is what float32 has."""
    return float(f"{score:.7g}")


def class_axis(declared: list[Any], shape: tuple[int, ...]) -> int | None:
    """The axis of an output that has the classes, where that is plain.

    It is the only one whose length the model fixes, or, of two that it fixes, the short one where
    the other is as long as a detector's boxes are many.
    """
    fixed = [n for n, length in enumerate(declared) if n > 0 and isinstance(length, int)]
    if len(fixed) == 1:
        return fixed[0]
    if len(shape) == 3 and len(fixed) == 2:
        short, long = sorted((1, 2), key=lambda n: shape[n])
        if shape[long] >= MANY_BOXES and shape[short] <= FEW_CLASSES:
            return short
    return None
