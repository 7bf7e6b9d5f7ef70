"""`recaption.report`: its page in a real Chromium, and what it says about runs large and small.

RECAPTION_SCREENSHOT=FILE.png has the screenshot's test write there, too: docs/report.png is made so.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from browser import browser, opened
from drawing import Sample, draw_samples, write_shard
from helpers import launched, refused, rows, wait_until
from pages import count, data_of, report, reported
from PIL import Image
from playwright.sync_api import Browser, Page
from synthetic import make_run

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "<!-- <script> \u2028 @SCRIPT@ ]]> &lt;b&gt;",
    "javascript:document.title='owned'",
)
HEIGHT = 1990  # of the screenshot, pixels
SORRY = "I'm sorry, but I can't help with that."
PER_SHARD = 14
SHARDS = ("00000.tar", "00001.tar")


@dataclass(frozen=True)
class Two:
    """A plain run and one with bad captions over the same two shards, and the page of both."""

    folder: Path
    file: Path
    one: Path  # the page of the second run alone
    captions: dict[str, list[str]] = field(default_factory=dict)  # key → of both runs


def broken(key: str, content: bytes, text: str) -> Sample:
    return Sample(key, {"jpg": content, "txt": text.encode()})


def bomb() -> bytes:
    """A picture whose header is honest and whose pixels are too many for the rules."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder = tmp_path_factory.mktemp("two")
    (folder / "set").mkdir()
    for number, name in enumerate(SHARDS):
        samples = draw_samples(PER_SHARD, number, side=160, plain=True, name=f"n{number}")
        for i, text in enumerate(HOSTILE[: 5 - number]):
            samples[i + 3] = Sample(
                samples[i + 3].key, {**samples[i + 3].members, "txt": text.encode()}
            )
        samples[1] = broken(samples[1].key, b"<html>", "not a picture")
        samples[2] = broken(samples[2].key, bomb(), "too large")
        write_shard(folder / f"set/{name}", samples)
    word = f"data.shards={folder}/set/*.tar"
    launched(word, "engine=fake", "output.dir=plain", cwd=folder)
    made = [row for name in SHARDS for row in rows(folder / "plain", name)]
    said = [row["caption"] for row in made if row["status"] == "captioned"]
    poison = {caption: f"say {text}" for caption, text in zip(said, HOSTILE, strict=False)}
    poison |= {said[6]: f"say {SORRY}", said[7]: "cut", said[8]: "cut"}
    (folder / "presets/engine").mkdir(parents=True)
    preset = json.dumps({"kind": "fake", "poison": poison})
    (folder / "presets/engine/poisoned.yaml").write_text(preset)
    launched(
        f"--config-dir={folder}/presets", word, "engine=poisoned", "output.dir=poisoned", cwd=folder
    )
    reported("plain", "poisoned", "-o", "two.html", cwd=folder)
    reported("poisoned", "-o", "one.html", cwd=folder)
    captions: dict[str, list[str]] = {}
    for run in ("plain", "poisoned"):
        for name in SHARDS:
            for row in rows(folder / run, name):
                captions.setdefault(row["key"], []).append(row["caption"])
    return Two(folder, folder / "two.html", folder / "one.html", captions)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with watermark scores 0.00, 0.01 … and no pictures any more."""
    folder = tmp_path_factory.mktemp("scored")
    make_run(folder / "run", 4, 25)
    reported("run", "-o", "run.html", cwd=folder)
    return folder / "run.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def cleared(page: Page, everything: int) -> None:
    page.click("button[type=reset]")
    wait_until(lambda: count(page) == everything, 5, "the filters stay")


def test_numbers_are_those_of_the_rows(two: Two) -> None:
    seen = data_of(two.file)
    for run, name in zip(seen["runs"], ("plain", "poisoned"), strict=True):
        made = [row for shard in SHARDS for row in rows(two.folder / name, shard)]
        states = Counter(row["status"] for row in made)
        assert run["samples"] == {
            s: states[s] for s in ("captioned", "filtered", "rejected", "failed")
        }
        assert run["samples"]["rejected"] == 4
        assert run["basis"]["exact"]
        assert run["basis"]["rows"] == len(made)
        assert run["throughput"]["overall"] > 0
    made = [row for shard in SHARDS for row in rows(two.folder / "poisoned", shard)]
    flags = Counter(flag for row in made for flag in row["flags"].split(",") if flag)
    assert flags["truncated"] == 2
    assert flags["refusal"] == 1
    assert seen["columns"][1]["flags"] == flags
    lengths = sorted(len(row["caption"]) for row in made if row["status"] == "captioned")
    shape = seen["histograms"][0]["columns"][1]
    assert shape["n"] == len(lengths) == sum(shape["bars"]) + shape["over"]
    assert shape["mean"] == pytest.approx(sum(lengths) / len(lengths), abs=0.01)
    assert abs(shape["median"] - lengths[len(lengths) // 2]) <= 1
    labels = [column["label"] for column in seen["columns"]]
    assert labels == ["tiny · short · plain", "tiny · short · poisoned"]


def test_pictures_and_reasons(two: Two) -> None:
    seen = data_of(two.file)
    assert len(seen["gallery"]) == len(SHARDS) * PER_SHARD
    for item in seen["gallery"]:
        good = item["cells"][0]["status"] == "captioned"
        assert item["picture"].startswith("data:image/webp;base64,") is good
        assert bool(item["why"]) is not good
        assert [cell["caption"] for cell in item["cells"]] == two.captions[item["key"]]
    reasons = {item["why"] for item in seen["gallery"] if item["why"]}
    assert any("not a JPEG, PNG, WebP" in reason for reason in reasons)
    assert any("max_source_pixels" in reason for reason in reasons)
    severities = [item["bad"] for item in seen["gallery"]]
    assert severities == sorted(severities, reverse=True)
    again = two.folder / "again.html"
    reported("plain", "poisoned", "-o", str(again), cwd=two.folder)
    assert data_of(again)["gallery"] == seen["gallery"]


def test_hostile_captions_are_text(two: Two, chromium: Browser) -> None:
    with opened(chromium, two.file) as page:
        assert "owned" not in page.title()
        texts = page.locator(".card .text").all_text_contents()
        for caption in HOSTILE:
            assert texts.count(caption) >= 2, caption  # as an original and as a new caption
        assert (
            page.evaluate("document.querySelectorAll('main script, main a, .cell img').length") == 0
        )
        assert page.evaluate("document.scripts.length") == 2
        assert page.evaluate("typeof owned") == "undefined"


def test_two_runs_stand_side_by_side(two: Two, chromium: Browser) -> None:
    with opened(chromium, two.file) as page:
        assert page.locator(".card").count() == len(SHARDS) * PER_SHARD
        page.locator(".card img").first.scroll_into_view_if_needed()
        wait_until(
            lambda: page.evaluate("document.querySelector('.card img').naturalWidth"),
            10,
            "no picture",
        )
        for card in page.locator(".card").all():
            key = card.get_attribute("aria-label")
            assert key is not None
            old, first, second = card.locator(".cell").all()
            heads = [c.locator("h4").text_content() for c in (old, first, second)]
            assert heads == ["Original", "tiny · short · plain", "tiny · short · poisoned"]
            texts = [c.locator(".text").text_content() for c in (first, second)]
            assert texts == [caption or "no caption" for caption in two.captions[key]]
        places = page.evaluate(
            "[...document.querySelectorAll('.card:last-child .cell')]"
            ".map(c => c.getBoundingClientRect()).map(r => [r.x, r.y])"
        )
        assert len({y for _, y in places}) == 1
        assert len({x for x, _ in places}) == 3


def test_filters(two: Two, chromium: Browser) -> None:
    with opened(chromium, two.file) as page:
        everything = count(page)
        page.select_option("[name=flag]", "=truncated")
        assert count(page) == page.locator(".card").count() == 2
        page.select_option("[name=column]", label="tiny · short · plain")
        assert count(page) == 0
        cleared(page, everything)
        page.select_option("[name=status]", "rejected")
        assert count(page) == 4
        cleared(page, everything)
        page.fill("[name=text]", "SORRY, but")
        assert count(page) == 1
        page.fill("[name=text]", "<img src=x")
        assert count(page) == 3  # two originals, one caption
        cleared(page, everything)
        page.fill("[name=low]", str(len(SORRY)))
        page.fill("[name=high]", str(len(SORRY)))
        wanted = sum(any(len(c) == len(SORRY) for c in both) for both in two.captions.values())
        assert count(page) == wanted > 0
        page.click("button.link:text('refusal')")
        assert count(page) == 1
        assert page.input_value("[name=flag]") == "=refusal"


def test_scores(scored: Path, chromium: Browser) -> None:
    with opened(chromium, scored) as page:
        assert count(page) == 100
        assert "watermark score" in page.inner_text("#shapes")
        page.select_option("[name=measure]", "s:watermark_score")
        page.fill("[name=low]", "0.295")
        page.fill("[name=high]", "0.5")
        assert count(page) == 21
        page.select_option("[name=order]", "-s:watermark_score")
        assert "watermark 0.5" in page.locator(".card").first.inner_text()
        assert "cannot be read" in page.locator(".card").first.inner_text()


def test_keyboard(two: Two, chromium: Browser) -> None:
    with opened(chromium, two.file) as page:
        focused = "document.activeElement.name || document.activeElement.className"
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "text"
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        assert page.evaluate(focused) == "text"
        page.keyboard.type("sorry")
        assert count(page) == 1
        page.keyboard.press("Escape")
        wait_until(lambda: count(page) > 1, 5, "the filters stay")
        keys = []
        for key in "jjk":
            page.keyboard.press(key)
            keys.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
        order = [card["key"] for card in data_of(two.file)["gallery"]]
        assert keys == [order[0], order[1], order[0]]


@pytest.mark.parametrize("dark", [False, True])
def test_phone(two: Two, chromium: Browser, *, dark: bool) -> None:
    for file in (two.file, two.one):
        with opened(chromium, file, width=360, dark=dark) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 384
            assert light is not dark


def test_screenshot(two: Two, chromium: Browser, tmp_path: Path) -> None:
    """Of two runs given as RECAPTION_SCREENSHOT_RUNS, or of the ones made here."""
    file = two.file
    if given := os.environ.get("RECAPTION_SCREENSHOT_RUNS"):
        file = tmp_path / "given.html"
        reported(*given.split(), "-o", str(file), cwd=tmp_path)
    with opened(chromium, file) as page:
        target = Path(os.environ.get("RECAPTION_SCREENSHOT") or tmp_path / "report.png")
        page.set_viewport_size({"width": 1180, "height": HEIGHT})
        page.screenshot(path=target)
    image = Image.open(target)
    assert image.size == (1180, HEIGHT)
    small = image.quantize(128)
    small.save(target, optimize=True)
    assert len(image.convert("L").getcolors() or []) > 20
    assert target.stat().st_size < 300_000


def test_wrong_use(two: Two, tmp_path: Path) -> None:
    run = str(two.folder / "plain")
    refused(report(run, cwd=tmp_path), "-o")
    refused(report("-o", "x.html", cwd=tmp_path), "run director")
    refused(report(str(tmp_path), "-o", "x.html", cwd=tmp_path), str(tmp_path), "run.json")
    refused(report(run, "-o", "x.tar", cwd=tmp_path), "x.tar", ".html")
    refused(report(run, "-o", "no/x.html", cwd=tmp_path), "no/x.html")
    refused(report(run, "-o", "x.html", "--samples", "0", cwd=tmp_path), "--samples: 0", "5000")
    refused(report(run, "-o", "x.html", "--sample", "9", cwd=tmp_path), "--sample", "--samples")
    assert "default 2000" in report("--help", cwd=tmp_path).stdout
    assert list(tmp_path.iterdir()) == []
