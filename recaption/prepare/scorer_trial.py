"""Tries a scorer on drawn pictures, before anything is submitted.

An ONNX file does not say what its outputs are, and a wrong guess gives scores that look plausible:
probabilities that go through a second softmax, for example, are only lowered.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from recaption.config.onnx import Scorer
from recaption.config.scorers import WATERMARK, class_of
from recaption.errors import UserError, bad_value
from recaption.prepare.score_outputs import Array, class_axis, table

SIZE = 320, 240
ROUNDING = 1e-3


@dataclass(frozen=True)
class Trial:
    """A model's output for the drawn pictures."""

    key: str  # the section of the scorer's keys
    scorer: Scorer
    declared: list[Any]  # the output's shape as the model states it; names where it is free
    values: Array

    @property
    def kind_key(self) -> str:
        return f"{self.key}.output" if self.key == WATERMARK else f"{self.key}.kind"


def drawn() -> list[PIL.Image.Image]:
    """Drawn pictures that have little in common."""
    plain = [PIL.Image.new("RGB", SIZE, color) for color in ("black", "white", "orange")]
    rng = np.random.default_rng(17)
    noise = PIL.Image.fromarray(rng.integers(0, 256, (*SIZE[::-1], 3), np.uint8))
    slope = PIL.Image.linear_gradient("L").resize(SIZE)
    slopes = PIL.Image.merge("RGB", (slope, slope.rotate(90), slope.rotate(180)))
    scene = PIL.Image.new("RGB", SIZE, (120, 160, 220))
    pen = PIL.ImageDraw.Draw(scene)
    pen.ellipse((40, 40, 140, 140), "yellow")
    pen.rectangle((0, 170, 320, 240), "darkgreen")
    pen.polygon(((200, 170), (250, 60), (300, 170)), "brown")
    return [*plain, noise, slopes, scene]


def settled(trial: Trial) -> Scorer:
    """The scorer with its class and class axis; UserError if the outputs do not fit its kind."""
    scorer = _with_axis(trial)
    rows = table(trial.values, scorer)
    if not np.isfinite(rows).all():
        reason = "gives numbers that are not finite for drawn pictures"
        raise bad_value(f"{trial.key}.path", scorer.path, reason)
    _refuse_second_softmax(trial, rows)
    scorer = _with_class(trial, scorer, rows.shape[1])
    _check_range(trial, rows if scorer.kind == "softmax" else rows[:, scorer.class_ or 0])
    return scorer


def _with_axis(trial: Trial) -> Scorer:
    """The scorer with the axis of its classes; without `reduce` all other axes have length 1."""
    scorer, shape = trial.scorer, trial.values.shape
    long = [n for n in range(1, len(shape)) if shape[n] > 1]
    if scorer.reduce is None:
        if scorer.class_axis is not None:
            reason = f"there for {trial.key}.reduce, which is not set"
            raise bad_value(f"{trial.key}.class_axis", scorer.class_axis, reason)
        if len(long) > 1:
            raise bad_value(
                f"{trial.key}.path",
                scorer.path,
                f"gives {_times(shape)} numbers, which is no row of classes: of a detector's boxes "
                f"{trial.key}.reduce=max takes the highest score",
            )
        return scorer
    if len(shape) < 3:
        reason = f"nothing to reduce, {scorer.path} gives {_times(shape)} numbers"
        raise bad_value(f"{trial.key}.reduce", scorer.reduce, reason)
    axis = scorer.class_axis
    if axis is None:
        axis = class_axis(trial.declared, shape)
    if axis is None:
        ways = ", ".join(f"{n} ({shape[n]} classes)" for n in range(1, len(shape)))
        raise UserError(
            f"{trial.key}.class_axis: needed, {scorer.path} gives {_times(shape)} numbers; {ways}"
        )
    if axis >= len(shape):
        reason = f"1 to {len(shape) - 1}, {scorer.path} gives {_times(shape)} numbers"
        raise bad_value(f"{trial.key}.class_axis", axis, reason)
    return replace(scorer, class_axis=axis)


def _refuse_second_softmax(trial: Trial, rows: Array) -> None:
    shares = rows.shape[1] > 1 and rows.min() >= -ROUNDING
    if trial.scorer.kind == "softmax" and shares and np.allclose(rows.sum(1), 1, atol=ROUNDING):
        reason = "its outputs sum to 1 for every drawn picture: they are probabilities; use "
        raise bad_value(trial.kind_key, "softmax", f"{reason}{trial.kind_key}=probability")


def _with_class(trial: Trial, scorer: Scorer, count: int) -> Scorer:
    """The scorer with the position of its score; None if the model gives one number only."""
    key, kind = f"{trial.key}.class", scorer.kind
    needed, most = f"{trial.kind_key}={kind} needs one", 1
    if kind in ("softmax", "probability") and not scorer.reduce:
        needed, most = "two are needed", 2 if trial.key == WATERMARK else count
    unnamed = scorer.class_ is None and count > most
    if unnamed or (kind == "softmax" and count < 2):
        reason = f"gives {count} numbers per {'box' if scorer.reduce else 'picture'}, {needed}"
        reason += f", or {key} of 0 to {count - 1}" if unnamed else ""
        raise bad_value(f"{trial.key}.path", scorer.path, reason)
    if scorer.class_ is not None and scorer.class_ >= max(count, 2):
        raise bad_value(key, scorer.class_, f"0 to {count - 1}")
    return replace(scorer, class_=None if count == 1 else class_of(scorer))


def _check_range(trial: Trial, looked: Array) -> None:
    """Refuse values that are no probabilities, and warn of logits that look like probabilities."""
    kind, low, high = trial.scorer.kind, float(looked.min()), float(looked.max())
    within = low >= -ROUNDING and high <= 1 + ROUNDING
    seen = f"its outputs for drawn pictures are {low:.4g} to {high:.4g}"
    if kind == "probability" and not within:
        reason = f"{seen}, no probabilities; use softmax, sigmoid or value"
        raise bad_value(trial.kind_key, kind, reason)
    if kind in ("softmax", "sigmoid") and within:
        other = f"if they are probabilities already, use {trial.kind_key}=probability"
        print(f"warning: {trial.kind_key}={kind}: {seen}; {other}", file=sys.stderr)


def _times(shape: Sequence[int]) -> str:
    return "×".join(["N", *map(str, shape[1:])])
