"""The keys of ONNX models that score pictures: the watermark classifier and the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recaption.config.key import key

IMAGENET_MEAN = [0.485, 0.456, 0.406]
KINDS = ("softmax", "probability", "sigmoid", "value")
KIND = "what the model's outputs are, and so how they become a score"


@dataclass(kw_only=True)
class Onnx:
    """An ONNX model with one image as its input; `class_` is written `class` as a key."""

    path: str | None = key(None, "the .onnx file", path=True)
    sha256: str | None = key(None, "of the file; another one is an error at launch")
    threshold: float = key(0.5, "what action compares the score with")
    size: Any = key(None, "input side, or [height,width]; default: the model's own")
    layout: str = key("nchw", "of the input", choices=("nchw", "nhwc"), was="nchw")
    channels: str = key("rgb", "their order in the input", choices=("rgb", "bgr"), was="rgb")
    scale: float = key(255.0, "what RGB is divided by; 1: not", low=1e-6, was=255.0)
    mean: list[float] = key(IMAGENET_MEAN, "of R, G, B after the division, taken off; ImageNet's")
    std: list[float] = key(
        [0.229, 0.224, 0.225], "of R, G, B, what the rest is divided by; ImageNet's"
    )
    resampling: str = key(
        "bilinear", "Pillow's filter", choices=("nearest", "bilinear", "bicubic", "lanczos")
    )
    output_name: str | None = key(None, "the output that is used, of several", was=None)
    class_: int | None = key(
        None, "which of several numbers is the score; default: the second of two", low=0
    )
    reduce: str | None = key(
        None, "over a detector's boxes: the highest score", choices=("max",), was=None
    )
    class_axis: int | None = key(
        None,
        "reduce: the output's axis that has the classes; default: where plain",
        low=1,
        was=None,
    )


@dataclass(kw_only=True)
class Watermark(Onnx):
    """An ONNX classifier of two outputs, clean and watermarked."""

    kind: str = key("off", "set by watermark=off or watermark=onnx", choices=("off", "onnx"))
    output: str = key("softmax", KIND, choices=KINDS, was="softmax")
    action: str = key(
        "score", "drop: pictures at threshold or above are filtered", choices=("score", "drop")
    )


@dataclass(kw_only=True)
class Scorer(Onnx):
    """A further ONNX model under a name of the user's, such as scorers.aesthetic.path=…"""

    kind: str = key("softmax", KIND, choices=KINDS)
    action: str = key(
        "score",
        "drop: filtered at threshold or above; drop_below: below it",
        choices=("score", "drop", "drop_below"),
    )
