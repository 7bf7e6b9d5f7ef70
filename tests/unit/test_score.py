"""ONNX scorers against plain formulas, and what is refused before anything is submitted."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from watermarking import write_onnx

from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.config.schema import Config, Scorer
from recaption.errors import UserError
from recaption.prepare.score import Model, pin_scorers


def model(
    path: Path, outputs: int = 2, *, channels: int = 3, side: Any = 8, batch: Any = "N"
) -> Path:
    """A model whose outputs depend on the mean of the picture: (n + 1)·mean + n."""
    kernels = np.zeros((1, channels, 3, 3), np.float32)
    kernels[0, :, 1, 1] = 1 / channels
    weight = np.arange(1, outputs + 1, dtype=np.float32)[:, None]
    return write_onnx(
        path, kernels, np.full(1, -10.0), weight, np.arange(outputs), side=side, batch=batch
    )


def grey(level: int, side: int = 20) -> Image.Image:
    return Image.new("RGB", (side, side), (level, level, level))


PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


def scored(path: Path, levels: list[int], **rules: Any) -> list[float]:
    scorer = Scorer(path=str(path), **{**PLAIN, **rules})
    loaded = Model("test", scorer, 1)
    return loaded.scores([loaded.tensor(grey(level)) for level in levels])


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_the_kinds(tmp_path: Path, batch: Any) -> None:
    """Softmax of three, sigmoid and value of one; the model's batch size does not matter."""
    means = [level / 255 + 10 for level in (0, 100, 200, 255)]
    levels = [0, 100, 200, 255]
    three = model(tmp_path / "three.onnx", 3, batch=batch)
    logits = [[(n + 1) * m + n for n in range(3)] for m in means]
    shares = [math.exp(x[1]) / sum(map(math.exp, x)) for x in logits]
    assert scored(three, levels) == pytest.approx(shares, rel=1e-4)
    last = [math.exp(x[2]) / sum(map(math.exp, x)) for x in logits]
    assert scored(three, levels, class_=2) == pytest.approx(last, rel=1e-4)
    one = model(tmp_path / "one.onnx", 1, batch=batch)
    assert scored(one, levels, kind="value") == pytest.approx(means, rel=1e-5)
    sigmoids = [1 / (1 + math.exp(-m)) for m in means]
    assert scored(one, levels, kind="sigmoid") == pytest.approx(sigmoids, rel=1e-5)


def test_normalisation_and_size(tmp_path: Path) -> None:
    one = model(tmp_path / "one.onnx", 1, side="S")
    rules = {"kind": "value", "size": [4, 6], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    assert scored(one, [255], **rules) == pytest.approx([2.0 + 10])
    loaded = Model("test", Scorer(path=str(one), **rules), 1)
    assert loaded.tensor(grey(3, 30)).shape == (3, 4, 6)


def composed(*words: str) -> Config:
    fixed = ["data.shards=a", "data.name=a", "output.dir=b"]
    return to_config(compose_config(prepare([*fixed, *words])))


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        pin_scorers(composed(*words))
    return str(caught.value)


def test_a_good_model_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks get an absolute path and the hash that was seen."""
    path = model(tmp_path / "w.onnx")
    monkeypatch.chdir(tmp_path)
    config = composed("watermark=onnx", "watermark.path=w.onnx", "scorers.b.path=w.onnx")
    pin_scorers(config)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for scorer in (config.watermark, config.scorers["b"]):
        assert (scorer.path, scorer.sha256) == (str(path), digest)


def test_wrong_models_are_refused_by_key(tmp_path: Path) -> None:
    good, three, four, one, free, text = (
        model(tmp_path / "good.onnx"),
        model(tmp_path / "three.onnx", 3),
        model(tmp_path / "four.onnx", channels=4),
        model(tmp_path / "one.onnx", 1),
        model(tmp_path / "free.onnx", side="S"),
        tmp_path / "text.onnx",
    )
    text.write_text("no model")
    on = "watermark=onnx"

    def at(path: Path) -> str:
        return f"watermark.path={path}"

    assert refused(on).startswith("watermark.path: needed")
    assert refused(on, at(tmp_path / "x")).startswith(f"watermark.path={tmp_path}/x: cannot be")
    assert "not an ONNX model" in refused(on, at(text))
    assert "N×3×H×W is needed" in refused(on, at(four))
    assert "gives 3 numbers per picture, two are needed" in refused(on, at(three))
    assert "gives 1 numbers" in refused(on, at(one))
    assert refused(on, at(free)).startswith("watermark.size: needed")
    assert refused(on, at(good), "watermark.size=9").startswith("watermark.size=[9, 9]: ")
    assert refused(on, at(good), "watermark.class=2") == "watermark.class=2: 0 to 1"
    wrong = refused(on, at(good), f"watermark.sha256={'0' * 64}")
    assert wrong.startswith(f"watermark.sha256={'0' * 64}: ")
    assert "needs one" in refused(f"scorers.a.path={good}", "scorers.a.kind=value")
    assert refused("scorers.a.kind=value").startswith("scorers.a.path: needed")
    pin_scorers(composed(f"scorers.a.path={three}", "scorers.a.class=2"))
    pin_scorers(composed(on, at(free), "watermark.size=[8,12]"))


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("watermark.action=drop_below", "score"),
        ("watermark.resampling=cubic", "bicubic"),
        ("watermark.size=0", "a side of 1 to 4096"),
        ("watermark.std=[1,1,0]", "three numbers"),
        ("watermark.klass=1", "class"),
        ("scorers.a.kind=logit", "sigmoid"),
        ("scorers.a.thresold=1", "threshold"),
        ("scorers.a.threshold=high", "scorers.a.threshold"),
        ("scorers.Ab.path=x", "lower-case"),
        ("scorers.watermark.path=x", "not watermark"),
        ("quality.bad=[trunkated]", "truncated"),
        ("quality.script=runic", "cyrillic"),
        ("quality.retries=-1", "at least 0"),
    ],
)
def test_wrong_keys_and_values(word: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        composed(word)
    message = str(caught.value)
    assert word.partition("=")[0].split(".")[0] in message
    assert named in message
