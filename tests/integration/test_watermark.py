"""Scores of pictures: the same as a plain script's, stored everywhere, and acted on."""

from __future__ import annotations

import hashlib
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from drawing import Sample, draw, write_shard
from helpers import IMAGES, Members, launch, launched, markers, read_run, refused, rows
from PIL import Image
from watermarking import auc, examples, filters, overlaid, tensor, train, write_onnx

COUNT, SHARDS = 500, 5
MODES = ("RGB", "RGB", "RGB", "RGB", "L", "P", "RGBA", "CMYK", "turned")
FAKE = "engine=fake"
CAP = "model.max_pixels=4096"  # most pictures are larger, and were decoded at a fraction


@dataclass(frozen=True)
class Scored:
    """A run with three scorers over 500 pictures."""

    run: Path
    words: tuple[str, ...]
    pictures: dict[str, bytes]
    models: dict[str, Path]


def encoded(image: Image.Image, mode: str, rng: random.Random) -> bytes:
    file = io.BytesIO()
    match mode:
        case "turned":
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(file, "JPEG", quality=95, exif=exif)
        case "RGB":
            image.save(file, rng.choice(("PNG", "JPEG", "WEBP")), quality=90)
        case "RGBA":
            image.putalpha(Image.linear_gradient("L").resize(image.size))
            image.save(file, "PNG")
        case "CMYK":
            image.convert("CMYK").save(file, "JPEG", quality=90)
        case _:
            image.convert(mode).save(file, "PNG")
    return file.getvalue()


def pictures(count: int, seed: int, longest: int = 480) -> dict[str, tuple[bytes, bool]]:
    """Key → file and whether a text lies over it: mixed sizes, formats and modes."""
    rng = random.Random(seed)
    found = {}
    for n in range(count):
        marked = n % 2 == 1
        scene = Image.open(io.BytesIO(draw(rng, side=128).content)).convert("RGB")
        image = overlaid(scene, rng) if marked else scene
        side = rng.choice((24, 64, 100, 200, longest))
        size = side, max(16, round(side * rng.uniform(0.4, 1.0)))
        image = image.resize(size if n % 3 else size[::-1])
        found[f"p{n:04d}"] = encoded(image, MODES[n % len(MODES)], rng), marked
    return found


def plain_score(session: Any, content: bytes) -> Any:
    """Logits by onnxruntime and Pillow, with nothing of ours."""
    image = Image.open(io.BytesIO(content))
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return session.run(None, {"image": tensor(image.convert("RGB"))[None]})[0][0].astype(float)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("watermark") / "classifier.onnx")


@pytest.fixture(scope="session")
def scored(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    cwd = tmp_path_factory.mktemp("scored")
    drawn = pictures(COUNT, 7)
    (cwd / "in").mkdir()
    each = COUNT // SHARDS
    for n in range(SHARDS):
        part = list(drawn.items())[n * each : (n + 1) * each]
        samples = [Sample(key, {"jpg": content}) for key, (content, _) in part]
        write_shard(cwd / f"in/{n:05d}.tar", samples)
    one = cwd / "one.onnx"
    kernels, thresholds = filters()
    write_onnx(one, kernels, thresholds, 9 * np.ones((1, len(kernels))), [-1.0])
    words = (
        f"data.shards={cwd}/in/*.tar",
        FAKE,
        CAP,
        "watermark=onnx",
        f"watermark.path={classifier}",
        f"scorers.busy.path={one}",
        "scorers.busy.kind=value",
        f"scorers.share.path={one}",
        "scorers.share.kind=sigmoid",
        f"output.dir={cwd}/run",
    )
    launched(*words, "data.workers=2", cwd=cwd)
    contents = {key: content for key, (content, _) in drawn.items()}
    return Scored(cwd / "run", words, contents, {"watermark": classifier, "one": one})


def test_the_classifier_tells_marked_pictures(classifier: Path) -> None:
    """On pictures that it was not trained on."""
    held_out, labels = examples(300, seed=99)
    session = onnxruntime.InferenceSession(classifier, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": held_out})[0]
    area = auc(logits[:, 1] - logits[:, 0], labels)
    print(f"area under the curve, 300 held-out pictures: {area:.4f}")
    assert area >= 0.95


def test_scores_are_those_of_a_plain_script(scored: Scored) -> None:
    """500 pictures: on all pixels, unturned, whatever the model is shown."""
    found = {r["key"]: r for n in range(SHARDS) for r in rows(scored.run, f"{n:05d}.tar")}
    assert len(found) == COUNT
    assert {r["status"] for r in found.values()} == {"captioned"}
    sessions = {
        name: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for name, path in scored.models.items()
    }
    worst = 0.0
    for key, content in scored.pictures.items():
        logits = plain_score(sessions["watermark"], content)
        share = np.exp(logits[1]) / np.exp(logits).sum()
        (value,) = plain_score(sessions["one"], content)
        wanted = {"watermark": share, "busy": value, "share": 1 / (1 + np.exp(-value))}
        for name, score in wanted.items():
            worst = max(worst, abs(found[key][f"{name}_score"] - score))
            assert found[key][f"{name}_score"] == pytest.approx(score, abs=1e-4), (key, name)
    print(f"largest difference: {worst:.1e}")
    assert len({r["watermark_score"] for r in found.values()}) > COUNT / 2
    turned = found["p0008"]
    stored = Image.open(io.BytesIO(scored.pictures["p0008"])).size
    assert (turned["width"], turned["height"]) == stored[::-1]


def test_scores_are_in_the_json(scored: Scored) -> None:
    for name, samples in read_run(scored.run).items():
        by_key = {r["key"]: r for r in rows(scored.run, name)}
        for key, members in samples.items():
            fields = json.loads(members["json"])
            for column in ("watermark_score", "busy_score", "share_score"):
                assert type(fields[column]) is float
                assert fields[column] == pytest.approx(by_key[key][column], rel=1e-5)


def test_the_marker_names_the_models(scored: Scored) -> None:
    digest = hashlib.sha256(scored.models["watermark"].read_bytes()).hexdigest()
    for marker in markers(scored.run).values():
        assert digest in marker["scores"]["watermark.model"]
        assert marker["scores"]["scorers.busy.output"] == ["value", 0]
        (prompt,) = marker["prompts"]
        text = f"\0{prompt['text']}"
        assert prompt["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_what_the_fingerprint_covers(scored: Scored, tmp_path: Path) -> None:
    """The model's content and what decides; not the file's place, nor a threshold that decides nothing."""
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(scored.models["watermark"].read_bytes())
    words = [w for w in scored.words if not w.startswith("watermark.path")]
    again = launched(*words, f"watermark.path={moved}", "watermark.threshold=0.9", cwd=tmp_path)
    assert "nothing to do" in again.stdout
    other = train(tmp_path / "other.onnx", seed=2)
    message = refused(launch(*words, f"watermark.path={other}", cwd=tmp_path), "watermark.model")
    assert "another configuration" in message
    dropping = launch(*scored.words, "watermark.action=drop", cwd=tmp_path)
    refused(dropping, "watermark.action", "watermark.threshold")


def test_a_wrong_model_is_refused_at_launch(scored: Scored, tmp_path: Path) -> None:
    words = (scored.words[0], FAKE, "output.dir=x", "watermark=onnx")
    refused(launch(*words, cwd=tmp_path), "watermark.path")
    sha = launch(*words, scored.words[4], "watermark.sha256=00", cwd=tmp_path)
    refused(sha, "watermark.sha256=00")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("mode", ["full", "captions"])
def test_dropped_pictures_cost_no_generation(classifier: Path, tmp_path: Path, mode: str) -> None:
    """Each row says why; a picture that cannot be decoded has no score, and a number in the JSON."""
    samples = [Sample(key, {"jpg": c}) for key, (c, _) in pictures(40, 3, longest=256).items()]
    samples[5] = Sample("p0005", {"jpg": b"no picture"})
    (tmp_path / "in").mkdir()
    write_shard(tmp_path / "in/00000.tar", samples)
    words = (
        f"data.shards={tmp_path}/in/00000.tar",
        FAKE,
        CAP,
        "watermark=onnx",
        f"watermark.path={classifier}",
        "watermark.action=drop",
        "watermark.threshold=0.4",
        f"scorers.calm.path={classifier}",
        "scorers.calm.class=0",
        "scorers.calm.action=drop_below",
        "scorers.calm.threshold=0.7",
        f"output.mode={mode}",
        "output.dir=run",
        "engine.record=made.txt",
    )
    launched(*words, cwd=tmp_path)
    found = {r["key"]: r for r in rows(tmp_path / "run", "00000.tar")}
    for row in found.values():
        if row["key"] == "p0005":
            assert (row["status"], row["watermark_score"], row["calm_score"]) == (
                "rejected",
                None,
                None,
            )
        elif row["watermark_score"] >= 0.4:
            assert row["status"] == "filtered"
            assert row["reason"].startswith("watermark_score ")
            assert "watermark.threshold=0.4" in row["reason"]
        elif row["calm_score"] < 0.7:
            assert row["status"] == "filtered"
            assert "below scorers.calm.threshold=0.7" in row["reason"]
        else:
            assert row["status"] == "captioned"
    states = [r["status"] for r in found.values()]
    assert min(states.count("filtered"), states.count("captioned")) > 5
    kept = [k for k, r in found.items() if r["status"] == "captioned"]
    assert len((tmp_path / "made.txt").read_text().splitlines()) == len(kept)
    (shard,) = read_run(tmp_path / "run").values()
    assert list(shard) == (kept if mode == "full" else list(found))
    check_members(shard, found, mode)
    verified = launch("run", "--input", cwd=tmp_path, module="verify")
    assert verified.returncode == 0, verified.stdout


def check_members(shard: dict[str, Members], found: dict[str, Any], mode: str) -> None:
    for key, members in shard.items():
        assert bool(set(members) & set(IMAGES)) == (mode == "full")
        fields, row = json.loads(members["json"]), found[key]
        assert members["txt"].decode() == fields["caption"] == row["caption"]
        for column in ("watermark_score", "calm_score"):
            wanted = -1.0 if row[column] is None else row[column]
            assert fields[column] == pytest.approx(wanted, rel=1e-5)


def test_the_demo_can_score(tmp_path: Path) -> None:
    model = train(tmp_path / "watermark.onnx")
    words = ("drawn", FAKE, "watermark=onnx", f"watermark.path={model}")
    result = launch(*words, cwd=tmp_path, module="demo")
    assert result.returncode == 0, result
    assert "(watermark 0." in result.stdout
    run = tmp_path / "drawn/recaptioned"
    scores = [row["watermark_score"] for name in markers(run) for row in rows(run, name)]
    assert len(scores) == 256
    assert sum(score < 0.5 for score in scores) > 230, "the demo's pictures bear no text"
