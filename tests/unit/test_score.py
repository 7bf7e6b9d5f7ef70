"""ONNX scorers against plain formulas, and what is refused before anything is submitted."""

from __future__ import annotations

import copy
import functools
import hashlib
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import helper, numpy_helper
from PIL import Image
from watermarking import write_onnx

from recaption.config.check import check
from recaption.config.compose import compose_config, to_config
from recaption.config.onnx import Scorer
from recaption.config.overrides import prepare
from recaption.config.records import typed_config
from recaption.config.schema import Config
from recaption.config.scorers import named_scorers
from recaption.errors import UserError
from recaption.prepare.score import Model, load, pin_scorers
from recaption.run.identity import identity
from recaption.run.record import plain_config


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


def gray(level: int, side: int = 20) -> Image.Image:
    return Image.new("RGB", (side, side), (level, level, level))


PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


def scored(path: Path, levels: list[int], **rules: Any) -> list[float]:
    scorer = Scorer(path=str(path), **{**PLAIN, **rules})
    loaded = Model("test", scorer, 1)
    return loaded.scores([loaded.tensor(gray(level)) for level in levels])


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


def test_normalization_and_size(tmp_path: Path) -> None:
    one = model(tmp_path / "one.onnx", 1, side="S")
    rules = {"kind": "value", "size": [4, 6], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    assert scored(one, [255], **rules) == pytest.approx([2.0 + 10])
    loaded = Model("test", Scorer(path=str(one), **rules), 1)
    assert loaded.tensor(gray(3, 30)).shape == (3, 4, 6)


class Built:
    """Small models of the mean red, green and blue of a picture, in the order of their input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        *nodes: Any,
        layout: str = "nchw",
        sides: tuple[Any, Any] = (8, 8),
        **outputs: tuple[int, list[Any]],
    ) -> str:
        """A file whose nodes go on from `means`, N×3; outputs: name=(type, shape)."""
        axes = [2, 3] if layout == "nchw" else [1, 2]
        shape = ["N", 3, *sides] if layout == "nchw" else ["N", *sides, 3]
        known = numpy_helper.from_array(np.array(axes, np.int64), "axes")
        means = helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0)
        graph = helper.make_graph(
            [means, *(n for n in nodes if isinstance(n, onnx.NodeProto))],
            "means",
            [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, *how) for name, how in outputs.items()],
            [known, *(n for n in nodes if isinstance(n, onnx.TensorProto))],
        )
        opset = helper.make_opsetid("", 18)
        path = self.folder / f"{len(list(self.folder.iterdir()))}.onnx"
        onnx.save_model(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
        return str(path)

    def softmax(self) -> str:
        """The shares of the three means."""
        return self(helper.make_node("Softmax", ["means"], ["shares"]), shares=(1, ["N", 3]))

    def boxes(self, *shape: int) -> tuple[str, np.ndarray]:
        """Means times weights, as classes and boxes; and those weights, of the shape 3×…"""
        count = int(np.prod(shape))
        weights = np.random.default_rng(5).random((3, count)).astype(np.float32) / 3
        parts = [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([-1, *shape], np.int64), "shape"),
            helper.make_node("MatMul", ["means", "weights"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["boxes"]),
        ]
        return self(*parts, boxes=(1, ["N", *shape])), weights.reshape(3, *shape)


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return Built(tmp_path)


COLOR = (200, 100, 50)


def score_of(*words: str) -> float:
    """Of a picture of one color, by the scorer `a` as launch would pin it."""
    config = with_scorers(*words)
    pin_scorers(config)
    (loaded,) = load(config, 1)
    return loaded.scores([loaded.tensor(Image.new("RGB", (30, 20), COLOR))])[0]


UNIT = ("scorers.a.mean=[0,0,0]", "scorers.a.std=[1,1,1]")


def test_probabilities_get_no_second_softmax(built: Built) -> None:
    path = built.softmax()
    shares = np.exp(np.array(COLOR) / 255)
    for key, option in (("watermark", "watermark.output"), ("scorers.a", "scorers.a.kind")):
        words = ["watermark=onnx"] if key == "watermark" else []
        words += [f"{key}.path={path}", f"{key}.class=0"]
        message = refused(*words)
        assert message.startswith(f"{option}=softmax: "), message
        assert f"use {option}=probability" in message
        config = with_scorers(
            *words, f"{option}=probability", *(w.replace("scorers.a", key) for w in UNIT)
        )
        pin_scorers(config)
        (loaded,) = load(config, 1)
        (found,) = loaded.scores([loaded.tensor(Image.new("RGB", (30, 20), COLOR))])
        assert found == pytest.approx(shares[0] / shares.sum(), rel=1e-5)
    message = refused(f"scorers.a.path={path}", "scorers.a.kind=value")
    assert (
        "gives 3 numbers per picture, scorers.a.kind=value needs one, or scorers.a.class" in message
    )


def test_what_is_no_probability_is_refused(built: Built) -> None:
    means = helper.make_node("Mul", ["means", "means"], ["squares"])
    path = built(means, squares=(1, ["N", 3]))
    words = (f"scorers.a.path={path}", "scorers.a.scale=1", *UNIT)
    message = refused(*words, "scorers.a.kind=probability")
    assert message.startswith("scorers.a.kind=probability: "), message
    assert "no probabilities" in message
    assert score_of(*words, "scorers.a.kind=value", "scorers.a.class=2") == 2500


def test_a_kind_that_is_not_plainly_wrong_is_asked_about(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = built.boxes(1)
    score_of(f"scorers.a.path={path}", "scorers.a.kind=sigmoid", *UNIT)
    assert (
        "if they are probabilities already, use scorers.a.kind=probability"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_how_a_picture_is_fed(built: Built, layout: str, channels: str) -> None:
    """Mean and spread are those of red, green and blue, whatever order the model takes."""
    same = helper.make_node("Identity", ["means"], ["values"])
    words = [f"scorers.a.path={built(same, layout=layout, values=(1, ['N', 3]))}"]
    words += ["scorers.a.kind=value", f"scorers.a.channels={channels}", "scorers.a.scale=2"]
    words += ["scorers.a.mean=[10,20,30]", "scorers.a.std=[1,2,4]"]
    wanted = [(200 / 2 - 10) / 1, (100 / 2 - 20) / 2, (50 / 2 - 30) / 4]
    for place, value in enumerate(wanted if channels == "rgb" else wanted[::-1]):
        assert score_of(*words, f"scorers.a.class={place}", f"scorers.a.layout={layout}") == value
    other = {"nchw": "nhwc", "nhwc": "nchw"}[layout]
    message = refused(*words, "scorers.a.class=0", f"scorers.a.layout={other}")
    assert ("scorers.a.layout=nhwc" if layout == "nhwc" else "N×H×W×3 is needed") in message


@pytest.mark.parametrize("section", ["watermark", "scorers.a"])
def test_a_picture_is_scaled_by_the_filter_that_is_named(built: Built, section: str) -> None:
    same = helper.make_node("Identity", ["means"], ["values"])
    words = [f"{section}.path={built(same, values=(1, ['N', 3]))}", f"{section}.class=0"]
    words += ["watermark=onnx"] if section == "watermark" else []
    picture = Image.linear_gradient("L").resize((37, 23)).convert("RGB")
    for name in ("nearest", "bilinear", "bicubic", "lanczos"):
        (loaded,) = load(with_scorers(*words, f"{section}.resampling={name}"), 1)
        wanted = np.asarray(picture.resize((8, 8), Image.Resampling[name.upper()]), np.float32)
        found = loaded.tensor(picture).transpose(1, 2, 0) * loaded.std + loaded.mean
        assert found * 255 == pytest.approx(wanted, abs=1e-3)


def score_of_watermark(*words: str) -> float:
    config = composed("watermark=onnx", *(f"watermark.{word}" for word in words))
    pin_scorers(config)
    (loaded,) = load(config, 1)
    return loaded.scores([loaded.tensor(Image.new("RGB", (30, 20), COLOR))])[0]


def test_a_watermark_s_model_is_fed_and_read_as_a_scorer_s(built: Built) -> None:
    same = helper.make_node("Identity", ["means"], ["values"])
    shares = helper.make_node("Softmax", ["means"], ["shares"])
    path = built(same, shares, layout="nhwc", values=(1, ["N", 3]), shares=(1, ["N", 3]))
    fed = ("layout=nhwc", "channels=bgr", "scale=2", "mean=[10,20,30]", "std=[1,2,4]")
    found = score_of_watermark(
        f"path={path}", *fed, "class=0", "output=value", "output_name=values"
    )
    assert found == (50 / 2 - 30) / 4
    path, weights = built.boxes(30, 40)
    boxes = np.tensordot(np.array(COLOR) / 255, weights, 1)
    plain = ("mean=[0,0,0]", "std=[1,1,1]", "output=value", "reduce=max", "class=3")
    for axis, row in {1: boxes[3], 2: boxes[:, 3]}.items():
        found = score_of_watermark(f"path={path}", *plain, f"class_axis={axis}")
        assert found == pytest.approx(row.max(), rel=1e-5)


@pytest.mark.parametrize("classes_first", [True, False])
def test_the_highest_score_of_a_detectors_boxes(built: Built, classes_first: bool) -> None:
    """As nudenet has them, 22×2,100, or turned."""
    path, weights = built.boxes(*((22, 2100) if classes_first else (2100, 22)))
    words = (f"scorers.a.path={path}", "scorers.a.kind=probability", *UNIT)
    message = refused(*words, "scorers.a.class=7")
    assert ("N×22×2100" if classes_first else "N×2100×22") in message
    assert "scorers.a.reduce=max" in message
    boxes = np.tensordot(np.array(COLOR) / 255, weights, 1)
    row = boxes[7] if classes_first else boxes[:, 7]
    found = score_of(*words, "scorers.a.class=7", "scorers.a.reduce=max")
    assert found == pytest.approx(row.max(), rel=1e-5)
    assert "or scorers.a.class of 0 to 21" in refused(*words, "scorers.a.reduce=max")


def test_boxes_that_may_be_classes_are_asked_about(built: Built) -> None:
    path, weights = built.boxes(30, 40)
    words = (f"scorers.a.path={path}", "scorers.a.kind=value", "scorers.a.reduce=max", *UNIT)
    message = refused(*words, "scorers.a.class=3")
    assert message.startswith("scorers.a.class_axis: needed"), message
    assert "1 (30 classes), 2 (40 classes)" in message
    boxes = np.tensordot(np.array(COLOR) / 255, weights, 1)
    for axis, row in {1: boxes[3], 2: boxes[:, 3]}.items():
        found = score_of(*words, "scorers.a.class=3", f"scorers.a.class_axis={axis}")
        assert found == pytest.approx(row.max(), rel=1e-5)
    assert "1 to 2" in refused(*words, "scorers.a.class=3", "scorers.a.class_axis=3")


def test_the_axis_that_a_model_fixes_has_the_classes(built: Built) -> None:
    """A map of one class, N×1×H×W, as detectors of text give it."""
    brightest = helper.make_node("ReduceMax", ["image", "first"], ["map"], keepdims=1)
    first = numpy_helper.from_array(np.array([1], np.int64), "first")
    path = built(brightest, first, sides=("H", "W"), map=(1, ["N", 1, "H", "W"]))
    words = (f"scorers.a.path={path}", "scorers.a.kind=probability", "scorers.a.reduce=max", *UNIT)
    assert score_of(*words, "scorers.a.size=[8,12]") == pytest.approx(COLOR[0] / 255)


def test_one_of_several_outputs_is_named(built: Built) -> None:
    nodes = (
        helper.make_node("Identity", ["means"], ["first"]),
        helper.make_node("Softmax", ["means"], ["second"]),
        helper.make_node("ArgMax", ["means"], ["third"], axis=1, keepdims=0),
    )
    path = built(*nodes, first=(1, ["N", 3]), second=(1, ["N", 3]), third=(7, ["N"]))
    words = (f"scorers.a.path={path}", "scorers.a.class=0", *UNIT)
    message = refused(*words)
    assert message.startswith("scorers.a.output_name: needed"), message
    assert "second ['N', 3]" in message
    named = "scorers.a.output_name=second"
    assert score_of(*words, named, "scorers.a.kind=probability") < 0.5
    assert "valid choices are" in refused(*words, "scorers.a.output_name=fourth")
    assert "floating-point" in refused(*words, "scorers.a.output_name=third")


def test_a_run_that_exists_goes_on_as_it_was(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second softmax and one over all boxes: said, not changed, and not in the identity."""
    wrong = (built.softmax(), built.boxes(22, 2100)[0])
    for path in wrong:
        config = with_scorers(f"scorers.a.path={path}", "scorers.a.class=0", *UNIT)
        pin_scorers(config, exists=True)
        assert "warning: scorers.a." in capsys.readouterr().err
        (loaded,) = load(config, 1)
        color = loaded.tensor(Image.new("RGB", (30, 20), COLOR))
        flat = loaded.outputs([color]).ravel().astype(np.float64)
        shares = np.exp(flat - flat.max())
        assert loaded.scores([color]) == [pytest.approx(shares[0] / shares.sum(), rel=1e-6)]
        covered = identity(config, [config.prompt], "files", ["/data/0.tar"])
        mine = {k: v for k, v in covered.items() if k.startswith("scorers.a.")}
        assert set(mine) == {f"scorers.a.{k}" for k in ("model", "output", "input", "action")}
        assert mine["scorers.a.output"] == ["softmax", 0]


def test_0_1_0_recorded_a_class_where_it_means_nothing(built: Built) -> None:
    config = with_scorers(f"scorers.a.path={built.boxes(1)[0]}", "scorers.a.kind=value")
    pin_scorers(config)
    record = plain_config(config)
    later = [f.name for f in fields(Scorer) if "was" in f.metadata]
    record["scorers"]["a"] = {k: v for k, v in record["scorers"]["a"].items() if k not in later}
    record["scorers"]["a"]["class_"] = 0
    then = typed_config(record)
    covered = identity(then, [then.prompt], "files", ["/data/0.tar"])
    assert covered == identity(config, [config.prompt], "files", ["/data/0.tar"])
    assert covered["scorers.a.output"] == ["value", 0]


@pytest.mark.parametrize(
    "word",
    "layout=nhwc channels=bgr scale=1 reduce=max class_axis=2 output_name=x class=0".split(),
)
def test_what_scores_are_made_of_is_in_the_identity(built: Built, word: str) -> None:
    words = (f"scorers.a.path={built.softmax()}", "scorers.a.kind=probability", *UNIT)
    found = [
        identity(c, [c.prompt], "files", ["/data/0.tar"])
        for c in (with_scorers(*words), with_scorers(*words, f"scorers.a.{word}"))
    ]
    assert found[0] != found[1]


def composed(*words: str) -> Config:
    fixed = ["data.shards=a", "data.name=a", "output.dir=b"]
    return to_config(compose_config(prepare([*fixed, *words])))


@functools.cache
def plain_words() -> Config:
    return composed()


def with_scorers(*words: str) -> Config:
    """As composed(), without Hydra where the words are keys of scorers alone."""
    if not all(word.startswith("scorers.") for word in words):
        return composed(*words)
    section: dict[str, dict[str, Any]] = {}
    for word in words:
        key, _, value = word.partition("=")
        _, name, leaf = key.split(".")
        section.setdefault(name, {})[leaf] = yaml.safe_load(value)
    config = copy.deepcopy(plain_words())
    config.scorers = named_scorers(section)
    check(config)
    return config


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        pin_scorers(with_scorers(*words))
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
    wanted = "gives 3 numbers per picture, two are needed, or watermark.class of 0 to 2"
    assert wanted in refused(on, at(three))
    assert "gives 1 numbers" in refused(on, at(one))
    assert refused(on, at(free)).startswith("watermark.size: needed")
    assert refused(on, at(good), "watermark.size=9").startswith("watermark.size=[9, 9]: ")
    assert refused(on, at(good), "watermark.class=2") == "watermark.class=2: 0 to 1"
    wrong = refused(on, at(good), f"watermark.sha256={'0' * 64}")
    assert wrong.startswith(f"watermark.sha256={'0' * 64}: ")
    wrong = refused(f"scorers.a.path={good}", "scorers.a.sha256='00'")
    assert wrong.startswith("scorers.a.sha256=00: ")
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
        ("watermark.scale=1", "watermark.mean"),
        ("watermark.output=logits", "probability"),
        ("scorers.a.layout=hwc", "nhwc"),
        ("scorers.a.reduce=mean", "max"),
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
