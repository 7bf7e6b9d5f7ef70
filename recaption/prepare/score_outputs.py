"""Turns the output of an ONNX model into one score per picture."""

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
    """The output as N×classes×boxes in float64; without `reduce` all numbers are classes."""
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
    """A score rounded to seven significant digits, the precision of float32."""
    return float(f"{score:.7g}")


def class_axis(declared: list[Any], shape: tuple[int, ...]) -> int | None:
    """The axis of an output along which the classes lie; None if that is not clear.

    It is the only axis of fixed length, or the short one of two if the other is so long that it holds
    a detector's boxes.
    """
    fixed = [n for n, length in enumerate(declared) if n > 0 and isinstance(length, int)]
    if len(fixed) == 1:
        return fixed[0]
    if len(shape) == 3 and len(fixed) == 2:
        short, long = sorted((1, 2), key=lambda n: shape[n])
        if shape[long] >= MANY_BOXES and shape[short] <= FEW_CLASSES:
            return short
    return None
