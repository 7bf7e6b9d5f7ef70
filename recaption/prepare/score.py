"""ONNX models that score pictures, on the CPU, inside the preparation workers.

A score is the softmax share of one output, the sigmoid of a single output, or its value, rounded
to seven significant digits. The input is the whole picture, as it is stored, in RGB, resized by
Pillow to the model's height and width, scaled to 0 to 1, and normalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from recaption.config.schema import Config, Scorer
from recaption.config.scorers import WATERMARK, all_scorers, section
from recaption.errors import SampleError, UserError, bad_value
from recaption.run.digest import sha256_of

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
Array = npt.NDArray[Any]


class Model:
    """One scorer with its session."""

    def __init__(self, name: str, scorer: Scorer, threads: int) -> None:
        self.name, self.scorer, self.key = name, scorer, section(name)
        self.session = _session(self.key, scorer, threads)
        self.input, self.height, self.width, self.batch = _input(self.key, scorer, self.session)
        self.output = self.session.get_outputs()[0].name
        self.resampling = PIL.Image.Resampling[scorer.resampling.upper()]
        self.dtype = FLOATS[self.input.type]
        self.mean = np.asarray(scorer.mean, np.float32)
        self.std = np.asarray(scorer.std, np.float32)

    def tensor(self, rgb: PIL.Image.Image) -> Array:
        """A picture as the model takes it, 3×H×W."""
        small = rgb.resize((self.width, self.height), self.resampling)
        values = (np.asarray(small, np.float32) / 255 - self.mean) / self.std
        return np.ascontiguousarray(values.transpose(2, 0, 1), self.dtype)

    def scores(self, tensors: Sequence[Array]) -> list[float]:
        """One score per picture, in one run where the model's batch size is free."""
        size = self.batch or len(tensors)
        found: list[float] = []
        for start in range(0, len(tensors), size):
            part = list(tensors[start : start + size])
            filled = part + [part[-1]] * (size - len(part))
            found += [self._score(row) for row in self.outputs(np.stack(filled))[: len(part)]]
        return found

    def outputs(self, batch: Array) -> Array:
        """The first output, N×outputs."""
        (values,) = self.session.run([self.output], {self.input.name: batch})
        return np.asarray(values, np.float64).reshape(len(batch), -1)

    def verdict(self, score: float | None) -> str:
        """Why a picture with this score is filtered; empty where it stays.

        Raises SampleError where there is none.
        """
        if score is None:
            raise SampleError(f"{self.key}.path: the model's score is not a finite number")
        threshold = f"{self.key}.threshold={self.scorer.threshold:g}"
        if self.scorer.action == "drop" and score >= self.scorer.threshold:
            return f"{self.name}_score {score:.4g} is at or above {threshold}"
        if self.scorer.action == "drop_below" and score < self.scorer.threshold:
            return f"{self.name}_score {score:.4g} is below {threshold}"
        return ""

    def _score(self, outputs: Array) -> float:
        if self.scorer.kind == "softmax":
            shares = np.exp(outputs - outputs.max())
            value = float(shares[self.scorer.class_] / shares.sum())
        else:
            value = float(outputs[0])
            if self.scorer.kind == "sigmoid":
                value = 1 / (1 + math.exp(-value)) if value > -700 else 0.0
        return significant(value)


def significant(score: float) -> float:
    """Seven significant digits, which is what float32 has."""
    return float(f"{score:.7g}")


def load(config: Config, threads: int) -> list[Model]:
    """All models of a run; UserError for one that cannot be used, naming its key."""
    return [Model(name, scorer, threads) for name, scorer in all_scorers(config).items()]


def pin_scorers(config: Config) -> None:
    """Check every scorer by running it on one picture, and fix its path and hash in `config`.

    Tasks then fail rather than score with another file. Raises UserError.
    """
    for name, scorer in all_scorers(config).items():
        key = section(name)
        if scorer.path is None:
            raise UserError(f"{key}.path: needed; the .onnx file")
        path = Path(scorer.path).expanduser().absolute()
        digest = _checked_hash(key, path, scorer.sha256)
        target = config.watermark if name == WATERMARK else config.scorers[name]
        target.path, target.sha256 = str(path), digest
        _try_out(Model(name, replace(scorer, path=str(path), sha256=digest), 1))


def _try_out(model: Model) -> None:
    tensor = model.tensor(PIL.Image.new("RGB", (64, 48)))
    try:
        outputs = model.outputs(np.stack([tensor] * (model.batch or 1)))
    except Exception as e:  # noqa: BLE001 - onnxruntime has a class of its own for every failure
        reason = f"cannot be run on one picture: {_first_line(e)}"
        raise bad_value(f"{model.key}.path", model.scorer.path, reason) from None
    count, scorer = outputs.shape[1], model.scorer
    wanted = "two" if model.name == WATERMARK else "two or more"
    if scorer.kind == "softmax":
        if count < 2 or (model.name == WATERMARK and count > 2):
            reason = f"gives {count} numbers per picture, {wanted} are needed"
            raise bad_value(f"{model.key}.path", scorer.path, reason)
        if scorer.class_ >= count:
            raise bad_value(f"{model.key}.class", scorer.class_, f"0 to {count - 1}")
    elif count != 1:
        reason = f"gives {count} numbers per picture, {model.key}.kind={scorer.kind} needs one"
        raise bad_value(f"{model.key}.path", scorer.path, reason)


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
    except Exception as e:  # noqa: BLE001 - as in _try_out
        raise bad_value(f"{key}.path", path, f"not an ONNX model: {_first_line(e)}") from None


def _input(key: str, scorer: Scorer, session: Any) -> tuple[Any, int, int, int | None]:
    """The model's input, its height and width, and its batch size where that is fixed."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if inputs else []
    fits = len(inputs) == 1 and len(shape) == 4 and shape[1] in (3, None)
    if not (fits or (len(inputs) == 1 and len(shape) == 4 and isinstance(shape[1], str))):
        found = "; ".join(f"{i.name} {i.shape}" for i in inputs)
        reason = f"has the input {found or 'none'}, one image input N×3×H×W is needed"
        raise bad_value(f"{key}.path", scorer.path, reason)
    if inputs[0].type not in FLOATS:
        reason = f"takes {inputs[0].type}, float or float16 is needed"
        raise bad_value(f"{key}.path", scorer.path, reason)
    own = [n if isinstance(n, int) else None for n in shape[2:]]
    height, width = scorer.size or own
    if height is None or width is None:
        raise UserError(f"{key}.size: needed, {scorer.path} takes any")
    if any(n not in (None, given) for n, given in zip(own, (height, width), strict=True)):
        raise bad_value(f"{key}.size", scorer.size, f"{scorer.path} takes {own[0]}×{own[1]}")
    return inputs[0], height, width, shape[0] if isinstance(shape[0], int) else None


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
