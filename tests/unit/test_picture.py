"""Odd and bad pictures: each ends as its rule says, within the memory that it may use."""

from __future__ import annotations

import io
import random
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import launched, rows, started
from hypothesis import given
from hypothesis import strategies as st
from pictures import RED, Case, bad, bomb, corpus, encode, good, halves
from PIL import Image
from tars import write_tar

from recaption.config.schema import Image as Rules
from recaption.errors import SampleError
from recaption.prepare import jpeg
from recaption.prepare.picture import Picture, decode

MAX_PIXELS, MIN_SIDE = 1 << 20, 8
CORPUS = corpus()
IDLE_MB = 250  # of a fake task that does nothing


def look(content: bytes, rules: Rules | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    return decode(content, rules or Rules(), max_pixels, MIN_SIDE)


def near(pixel: object, wanted: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(pixel, wanted)).max() <= 12)


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 60
    assert len({c.name for c in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("case", list(good()), ids=lambda c: c.name)
def test_good_and_odd_pictures(case: Case) -> None:
    picture = look(case.content)
    assert picture.rgb.mode == "RGB"
    assert (picture.width, picture.height) == case.size == picture.rgb.size
    if case.left:
        pixel = picture.rgb.getpixel((3, picture.height // 2))
        assert near(pixel, case.left), pixel


@pytest.mark.parametrize("case", list(bad()), ids=lambda c: c.name)
def test_bad_pictures(case: Case) -> None:
    with pytest.raises(SampleError, match=re.escape(case.reason)):
        look(case.content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["plain", "progressive"])
def test_a_cut_picture_is_never_shown_in_part(kind: str, options: dict[str, bool]) -> None:
    content = encode(halves(200, 150), kind, **options)
    whole = np.asarray(look(content).rgb)
    rng = random.Random(1)
    for length in sorted(rng.sample(range(1, len(content)), min(300, len(content) - 1))):
        try:
            seen = np.asarray(look(content[:length]).rgb)
        except SampleError:
            continue
        assert np.array_equal(seen, whole), length


def test_every_pixel_is_there_after_the_cap() -> None:
    picture = look(encode(halves(1500, 1000), "PNG"), max_pixels=10_000)
    assert picture.rgb.width * picture.rgb.height <= 10_000
    assert (picture.width, picture.height) == (1500, 1000)
    assert near(picture.rgb.getpixel((0, 0)), RED)


@pytest.mark.parametrize(("width", "height"), [(1200, 1199), (1199, 1200), (1202, 1201)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_nearly_square_jpeg_keeps_its_sides(width: int, height: int, orientation: int) -> None:
    """Decoded at a fraction, it is square; its EXIF says whether it lies."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = look(encode(halves(width, height), "JPEG", exif=exif), max_pixels=10_000)
    wanted = (width, height) if orientation == 1 else (height, width)
    assert (picture.width, picture.height) == wanted


def test_formats_are_an_allow_list() -> None:
    rules = Rules(formats=["PNG", "GIF"])
    assert look(encode(halves(), "GIF"), rules).width == 64
    with pytest.raises(SampleError, match="not a PNG or GIF image"):
        look(encode(halves(), "JPEG"), rules)


def plain(content: bytes, step: int) -> np.ndarray:
    """By Pillow alone."""
    with Image.open(io.BytesIO(content)) as image:
        if step > 1:
            image.draft(None, (image.width // step, image.height // step))
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("step", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "options",
    [
        *({"subsampling": s, "progressive": p} for s in (0, 1, 2) for p in (False, True)),
        {"mode": "L"},
        {"mode": "CMYK"},
        {"keep_rgb": True},
    ],
    ids=str,
)
def test_jpegs_have_the_pixels_that_pillow_gives_them(options: dict[str, Any], step: int) -> None:
    rng = np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (97, 131, 3), np.uint8)).resize((523, 389))
    options = {**options}
    content = encode(noise.convert(options.pop("mode", "RGB")), "JPEG", **options)
    with Image.open(io.BytesIO(content)) as image:
        ours = jpeg.read(content, image, step)
    assert ours is not None
    assert np.array_equal(np.asarray(ours.convert("RGB")), plain(content, step))


@pytest.mark.parametrize("draft", [True, False])
def test_large_jpegs_are_capped_with_and_without_draft(draft: bool) -> None:
    content = encode(halves(3000, 2000), "JPEG", quality=90)
    picture = look(content, Rules(draft=draft), max_pixels=60_000)
    assert 50_000 < picture.rgb.width * picture.rgb.height <= 60_000
    assert abs(picture.rgb.width / picture.rgb.height - 1.5) < 0.02


def test_the_background_is_configured() -> None:
    clear = Image.new("RGBA", (20, 20), (9, 9, 9, 0))
    picture = look(encode(clear, "PNG"), Rules(background=[10, 200, 30]))
    assert picture.rgb.getpixel((5, 5)) == (10, 200, 30)


@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "WEBP"]), st.data())
def test_rubbish_is_a_picture_or_an_error(junk: bytes, kind: str, data: st.DataObject) -> None:
    content = encode(halves(), kind)
    place = data.draw(st.integers(0, len(content)))
    try:
        picture = look(content[:place] + junk + content[place + len(junk) :])
    except SampleError as e:
        reason = str(e)
        assert len(reason) < 500
        return
    assert picture.rgb.mode == "RGB"


def test_the_corpus_through_a_run(tmp_path: Path) -> None:
    """Under wrong extensions, too: only the content counts."""
    extensions = ("jpg", "png", "webp", "jpeg")
    members = {f"{i:03d}.{extensions[i % 4]}": case.content for i, case in enumerate(CORPUS)}
    write_tar(tmp_path / "odd/00000.tar", members)
    launched("data.shards=odd/00000.tar", "engine=fake", "output.dir=run", cwd=tmp_path)
    found = rows(tmp_path / "run", "00000.tar")
    assert len(found) == len(CORPUS)
    for row, case in zip(found, CORPUS, strict=True):
        assert row["status"] == ("rejected" if case.reason else "captioned"), (case.name, row)
        assert case.reason in row["reason"], case.name
        if not case.reason:
            assert (row["width"], row["height"]) == case.size, case.name


def proportional_mb(pids: list[int]) -> float:
    """Memory of these processes together, shared pages counted once."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


@pytest.mark.slow
def test_twenty_bombs_stay_within_the_stated_memory(tmp_path: Path) -> None:
    """400 MB each when decoded: below image.max_source_pixels, above image.decode_mb."""
    content = bomb(10_000, 9_990)
    assert len(content) < 1_000_000
    members = {f"{i:02d}.png": content for i in range(20)}
    members["99.png"] = encode(halves(), "PNG")
    write_tar(tmp_path / "bombs/00000.tar", members)
    limits = ("data.workers=1", "data.alarm=1", "image.decode_mb=192", "data.buffer_mb=32")
    words = ("data.shards=bombs/00000.tar", "engine=fake", *limits, "output.dir=run")
    peak = 0.0
    with started(*words, cwd=tmp_path) as process:
        while process.popen.poll() is None:
            task = [pid for pid, _ in process.left() if pid != process.popen.pid]
            peak = max(peak, proportional_mb(task))
            time.sleep(0.02)
        assert process.finish(60).returncode == 0
    found = rows(tmp_path / "run", "00000.tar")
    assert [r["status"] for r in found] == ["rejected"] * 20 + ["captioned"]
    assert {r["reason"] for r in found[:20]} == {"image needs more memory than image.decode_mb"}
    assert 0 < peak < IDLE_MB + 192 + 32, peak
