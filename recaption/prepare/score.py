"""ONNX models that score pictures, on the CPU, inside the preparation workers.

The input is the whole picture, as it is stored, in RGB, resized by Pillow to the model's height and
width, divided by `scale`, and normalized. How the output becomes a score is said by its kind (see
prepare.score_outputs).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from recaption.config.onnx import Scorer
from recaption.config.schema import Config
from recaption.config.scorers import WATERMARK, all_scorers, section
from recaption.errors import SampleError, UserError, bad_choice, bad_value
from recaption.prepare.score_outputs import Array, score, table
from recaption.prepare.scorer_trial import Trial, drawn, settled
from recaption.run.columns import score_column
from recaption.run.digest import sha256_of

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
NUMBERS = (*FLOATS, "tensor(double)")  # types of an output


class Model:
    """One scorer with its session."""

    def __init__(self, name: str, scorer: Scorer, threads: int) -> None:
        self.name, self.scorer, self.key = name, scorer, section(name)
        self.session = _session(self.key, scorer, threads)
        self.input, self.height, self.width, self.batch = _input(self.key, scorer, self.session)
        self.output = scorer.output_name or self.session.get_outputs()[0].name
        self.resampling = PIL.Image.Resampling[scorer.resampling.upper()]
        self.dtype = FLOATS[self.input.type]
        self.mean = np.asarray(scorer.mean, np.float32)
        self.std = np.asarray(scorer.std, np.float32)

    def tensor(self, rgb: PIL.Image.Image) -> Array:
        """A picture as the model's input, 3×H×W or H×W×3."""
        small = rgb.resize((self.width, self.height), self.resampling)
        values = (np.asarray(small, np.float32) / self.scorer.scale - self.mean) / self.std
        if self.scorer.channels == "bgr":
            values = values[..., ::-1]
        if self.scorer.layout == "nchw":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, self.dtype)

    def scores(self, tensors: Sequence[Array]) -> list[float]:
        """One score per picture."""
        return [score(row, self.scorer) for row in table(self.outputs(tensors), self.scorer)]

    def outputs(self, tensors: Sequence[Array]) -> Array:
        """The model's output for these pictures, in one run unless its batch size is fixed."""
        size = self.batch or len(tensors)
        found = []
        for start in range(0, len(tensors), size):
            part = list(tensors[start : start + size])
            filled = np.stack(part + [part[-1]] * (size - len(part)))
            (values,) = self.session.run([self.output], {self.input.name: filled})
            found.append(np.asarray(values)[: len(part)])
        return np.concatenate(found)

    def verdict(self, score: float | None) -> str:
        """Why a picture with this score is filtered; '' if it stays.

        Raises SampleError if there is no score.
        """
        if score is None:
            raise SampleError(f"{self.key}.path: the model's score is not a finite number")
        threshold = f"{self.key}.threshold={self.scorer.threshold:g}"
        if self.scorer.action == "drop" and score >= self.scorer.threshold:
            return f"{score_column(self.name)} {score:.4g} is at or above {threshold}"
        if self.scorer.action == "drop_below" and score < self.scorer.threshold:
            return f"{score_column(self.name)} {score:.4g} is below {threshold}"
        return ""


def load(config: Config, threads: int) -> list[Model]:
    """All models of a run; UserError for one that cannot be used, naming its key."""
    return [Model(name, scorer, threads) for name, scorer in all_scorers(config).items()]


def pin_scorers(config: Config, *, exists: bool = False) -> None:
    """Try every scorer on drawn pictures, and set its path, hash and class in `config`.

    Tasks then fail rather than score with another file. Raises UserError; for a run that `exists`,
    outputs that fit no kind are only said, and its scores stay what they were.
    """
    for name, scorer in all_scorers(config).items():
        key = section(name)
        if scorer.path is None:
            raise UserError(f"{key}.path: needed; the .onnx file")
        path = Path(scorer.path).expanduser().absolute()
        digest = _checked_hash(key, path, scorer.sha256)
        target = config.watermark if name == WATERMARK else config.scorers[name]
        target.path, target.sha256 = str(path), digest
        model = Model(name, replace(scorer, path=str(path), sha256=digest), 1)
        try:
            found = settled(_tried(model))
        except UserError as e:
            if not exists:
                raise
            print(f"warning: {e}; the run goes on as it was made", file=sys.stderr)
        else:
            target.class_, target.class_axis = found.class_, found.class_axis


def _tried(model: Model) -> Trial:
    """The model's output for drawn pictures."""
    scorer, outputs = model.scorer, {o.name: o for o in model.session.get_outputs()}
    if scorer.output_name is None and len(outputs) > 1:
        listed = ", ".join(f"{name} {output.shape}" for name, output in outputs.items())
        raise UserError(f"{model.key}.output_name: needed, {scorer.path} has {listed}")
    if model.output not in outputs:
        raise bad_choice(f"{model.key}.output_name", model.output, outputs)
    output = outputs[model.output]
    if output.type not in NUMBERS:
        reason = f"gives {output.type} {output.shape}, floating-point numbers are needed"
        raise bad_value(f"{model.key}.path", scorer.path, reason)
    tensors = [model.tensor(picture) for picture in drawn()]
    try:
        values = model.outputs(tensors)
    except Exception as e:  # noqa: BLE001 - onnxruntime has a class of its own for every failure
        reason = f"cannot be run on drawn pictures: {_first_line(e)}"
        raise bad_value(f"{model.key}.path", scorer.path, reason) from None
    if values.ndim < 1 or len(values) != len(tensors):
        reason = f"gives {list(values.shape)} for {len(tensors)} pictures, N×… is needed"
        raise bad_value(f"{model.key}.path", scorer.path, reason)
    return Trial(model.key, scorer, output.shape, values)


def _session(key: str, scorer: Scorer, threads: int) -> Any:
    import onnxruntime

    path = scorer.path or ""
    _checked_hash(key, Path(path), scorer.sha256)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # noqa: BLE001 - as in _tried
        raise bad_value(f"{key}.path", path, f"not an ONNX model: {_first_line(e)}") from None


def _input(key: str, scorer: Scorer, session: Any) -> tuple[Any, int, int, int | None]:
    """The model's input, its height and width, and its batch size where that is fixed."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if inputs else []
    layouts = {"nchw": (1, slice(2, 4), "N×3×H×W"), "nhwc": (3, slice(1, 3), "N×H×W×3")}
    channels, sides, wanted = layouts[scorer.layout]
    if len(inputs) != 1 or len(shape) != 4 or not _is_or_may_be(shape[channels], 3):
        found = "; ".join(f"{i.name} {i.shape}" for i in inputs)
        reason = f"has the input {found or 'none'}, one image input {wanted} is needed"
        if len(inputs) == 1 and len(shape) == 4 and shape[3] == 3:
            reason = f"has the input {found}, which is {key}.layout=nhwc"
        raise bad_value(f"{key}.path", scorer.path, reason)
    if inputs[0].type not in FLOATS:
        reason = f"takes {inputs[0].type}, float or float16 is needed"
        raise bad_value(f"{key}.path", scorer.path, reason)
    own = [n if isinstance(n, int) else None for n in shape[sides]]
    height, width = scorer.size or own
    if height is None or width is None:
        raise UserError(f"{key}.size: needed, {scorer.path} takes any")
    if not all(map(_is_or_may_be, own, (height, width))):
        raise bad_value(f"{key}.size", scorer.size, f"{scorer.path} takes {own[0]}×{own[1]}")
    return inputs[0], height, width, shape[0] if isinstance(shape[0], int) else None


def _is_or_may_be(declared: Any, length: int) -> bool:
    return not isinstance(declared, int) or declared == length


def _checked_hash(key: str, path: Path, wanted: str | None) -> str:
    try:
        digest = sha256_of(path)
    except OSError as e:
        raise bad_value(f"{key}.path", path, f"cannot be read: {e.strerror}") from None
    if wanted is not None and wanted.lower() != digest:
        raise bad_value(f"{key}.sha256", wanted, f"{path} has {digest}")
    return digest


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
