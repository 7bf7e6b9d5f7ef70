"""The keys of ONNX models that score pictures: the watermark classifier and the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recaption.config.key import key

IMAGENET_MEAN = [0.485, 0.456, 0.406]
KINDS = ("softmax", "probability", "sigmoid", "value")
KIND = (
    "How the model's output becomes a score from it: it is logits of classes (softmax), "
    "probabilities, a logit (sigmoid), or a value that is taken as it is."
)


@dataclass(kw_only=True)
class Onnx:
    """An ONNX model that takes one picture; its field `class_` is the key `class`."""

    path: str | None = key(
        None, "The model's .onnx file, which takes one picture and gives its score.", path=True
    )
    sha256: str | None = key(
        None, "Expected SHA-256 of the file; launch refuses another file. Default: any."
    )
    threshold: float = key(0.5, "Score that action compares with.")
    size: Any = key(
        None,
        "Side of the model's input in pixels, or [height,width]. Default: what the model declares.",
    )
    layout: str = key(
        "nchw",
        "Order of the input's axes: nchw has the color channels first, nhwc last.",
        choices=("nchw", "nhwc"),
        was="nchw",
    )
    channels: str = key(
        "rgb", "Order of the color channels in the input.", choices=("rgb", "bgr"), was="rgb"
    )
    scale: float = key(
        255.0,
        "Number that the pixels, from 0 to 255, are divided by; 1 leaves them as they are.",
        low=1e-6,
        was=255.0,
    )
    mean: list[float] = key(
        IMAGENET_MEAN,
        "Means of red, green and blue, subtracted after the division. Default: ImageNet's.",
    )
    std: list[float] = key(
        [0.229, 0.224, 0.225],
        "Standard deviations of red, green and blue, divided by after that. Default: ImageNet's.",
    )
    resampling: str = key(
        "bilinear",
        "Filter that scales pictures to the input's size, as Pillow names it.",
        choices=("nearest", "bilinear", "bicubic", "lanczos"),
    )
    output_name: str | None = key(
        None, "Name of the output that holds the score, for a model with several outputs.", was=None
    )
    class_: int | None = key(
        None,
        "Position, counted from 0, of the number that is the score, for a model that gives "
        "several. Default: 1.",
        low=0,
    )
    reduce: str | None = key(
        None,
        "For a detector, how the scores of its boxes become one: max takes the highest. "
        "Default: the model gives one score.",
        choices=("max",),
        was=None,
    )
    class_axis: int | None = key(
        None,
        "With reduce, the axis of the output along which the classes lie. Default: found from "
        "the output's shape.",
        low=1,
        was=None,
    )


@dataclass(kw_only=True)
class Watermark(Onnx):
    """An ONNX classifier with two outputs, clean and watermarked."""

    kind: str = key("off", "Set by watermark=off or watermark=onnx.", choices=("off", "onnx"))
    output: str = key("softmax", KIND, choices=KINDS, was="softmax")
    action: str = key(
        "score",
        "What becomes of a picture: score stores its score, drop also filters pictures whose "
        "score is at or above threshold.",
        choices=("score", "drop"),
    )


@dataclass(kw_only=True)
class Scorer(Onnx):
    """A further ONNX model under a name that the user gives, such as scorers.aesthetic.path=…"""

    kind: str = key("softmax", KIND, choices=KINDS)
    action: str = key(
        "score",
        "What becomes of a picture: score stores its score, drop also filters those at or above"
        " threshold, drop_below those below it.",
        choices=("score", "drop", "drop_below"),
    )
