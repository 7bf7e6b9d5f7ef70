"""`recaption.report`: its page in a real Chromium, and what it says about runs large and small.

RECAPTION_SCREENSHOT=FILE.png has the screenshot's test write there, too: docs/report.png is made so.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from browser import browser, opened
from drawing import Sample, draw_samples, write_shard
from helpers import Completed, launch, launched, refused, rows, wait_until
from PIL import Image
from playwright.sync_api import Browser, Page

from recaption.config.schema import Image as Rules
from recaption.config.schema import Prompt
from recaption.report.pictures import Wanted, copies
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run, Submission, write_run, write_submission
from recaption.run.rows import write_rows
from recaption.run.tasklog import TaskLog

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
IDENTITY = {
    "output.mode": "full",
    "data.image_keys": ["jpg"],
    "data.caption_key": "caption",
    "data.damaged": "fail",
    "output.text": "replace",
    "watermark": "onnx",
    "scorers": [],
    "engine": "fake",
}


def report(*words: str, cwd: Path) -> Completed:
    return launch(*words, cwd=cwd, module="report")


def reported(*words: str, cwd: Path) -> str:
    result = report(*words, cwd=cwd)
    assert result.returncode == 0, result
    assert result.stderr == ""
    return result.stdout


def data_of(file: Path) -> Any:
    """The page's JSON."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text())
    assert found
    return json.loads(found[1])


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


def make_run(root: Path, shards: int, samples: int) -> RunPaths:
    """A finished run as tasks leave it, without tars: sidecars, markers and a log."""
    paths = RunPaths(root)
    root.mkdir()
    for folder in paths.folders():
        folder.mkdir()
    inputs = [InputShard(f"{root}/in/{i:06d}.tar", f"{i:06d}.tar", 1000) for i in range(shards)]
    prompt = Prompt(name="p", text="What is this?")
    write_run(paths, Run("f" * 64, IDENTITY, [prompt], {"name": "m"}, inputs, {}, time.time()), "t")
    every = list(range(shards))
    config = {"image": {"decode_seconds": 30.0, "decode_mb": 512}, "slurm": {"kind": "local"}}
    write_submission(paths, Submission(0, config, every, [every], time.time()), "t")
    log = TaskLog(paths.task_log(0, 0, "a"))
    log.write("start", node="n", pid=1, engines=1, workers=1)
    first = root / "first.parquet"
    for number, shard in enumerate(inputs):
        if number < 8:
            write_rows(first, [made_row(number, i, samples) for i in range(samples)], ["p"], SCORES)
        paths.sidecar(shard.name).write_bytes(first.read_bytes())
        paths.marker(shard.name).write_text("unread")
        counts = {"captioned": samples, "filtered": 0, "rejected": 0, "failed": 0}
        log.write("published", shard=shard.name, counts=counts, won=True)
    log.close()
    first.unlink()
    return paths


SCORES = ("watermark_score",)


def made_row(shard: int, i: int, samples: int) -> dict[str, Any]:
    return {
        "key": f"s{shard}_{i:04d}",
        "index": i,
        "status": "captioned",
        "reason": "",
        "caption": "word " * (i % 9 + 1),
        "caption_original": "old",
        "finish_reason": "stop",
        "tokens": i % 9 + 1,
        "flags": "truncated" if i % 10 == 0 else "",
        "watermark_score": (shard * samples + i) / 100 % 1.0,
        "width": 10,
        "height": 10,
        "tries": 1,
        "strikes": 0,
        "attempt": "a",
        "attempts": "",
    }


def count(page: Page) -> int:
    return int(page.inner_text("#count").split(" of ")[0].replace(",", ""))


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
    assert any("not a JPEG, PNG or WebP" in reason for reason in reasons)
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


def test_ten_thousand_shards(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 10_000, 20)
    before = time.monotonic()
    said = reported("run", "-o", "page.html", cwd=tmp_path)
    assert time.monotonic() - before < 5
    assert "2,000 of 10,000 shards" in said
    seen = data_of(tmp_path / "page.html")
    assert seen["runs"][0]["samples"]["captioned"] == 200_000
    assert seen["runs"][0]["basis"]["shards"] == 2000
    assert not seen["runs"][0]["basis"]["exact"]
    assert len(seen["gallery"]) == 240
    assert sum(item["cells"][0]["flags"] == ["truncated"] for item in seen["gallery"]) >= 100
    assert (tmp_path / "page.html").stat().st_size < 8_000_000


def test_fifty_thousand_samples_stay_fluid(tmp_path: Path, chromium: Browser) -> None:
    make_run(tmp_path / "run", 5, 10_000)
    reported("run", "--samples", "2000", "-o", "page.html", cwd=tmp_path)
    assert data_of(tmp_path / "page.html")["runs"][0]["basis"]["exact"]
    with opened(chromium, tmp_path / "page.html") as page:
        assert count(page) == 2000
        before = time.monotonic()
        page.fill("[name=text]", "word word word")
        page.select_option("[name=flag]", "any")
        page.select_option("[name=order]", "-length")
        assert 0 < count(page) < 2000
        assert time.monotonic() - before < 2


class Deadly(str):
    """A key that ends the process which receives it, as a decoder with a fault would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (9,)


def test_a_picture_that_ends_its_process_is_alone_lost(tmp_path: Path) -> None:
    samples = draw_samples(3, 1, side=96, plain=True)
    shard = write_shard(tmp_path / "a.tar", samples)
    keys = (samples[0].key, Deadly(samples[1].key), samples[2].key)
    wanted = Wanted(str(shard), keys, ("jpg", "jpeg", "png", "webp"), Rules())
    (made,) = copies([wanted], 30.0, 256, lambda done: None)
    assert [bool(copy.content) for copy in made] == [True, False, True]
    assert "died" in made[1].reason


@pytest.mark.parametrize("remote", [False, True])
def test_captions_mode_shows_the_source(one_shard: Path, tmp_path: Path, *, remote: bool) -> None:
    packed = tmp_path / "set/00000.tar.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(one_shard.read_bytes()))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/set/00000.tar.gz" if remote else str(packed)
        words = [f"data.shards={url}", "engine=fake", "output.mode=captions", "output.dir=run"]
        launched(*words, cwd=tmp_path)
        reported("run", "-o", "page.html", cwd=tmp_path)
        seen = data_of(tmp_path / "page.html")["gallery"]
        if remote:
            assert all("--fetch" in item["why"] for item in seen)
            reported("run", "-o", "page.html", "--fetch", cwd=tmp_path)
            seen = data_of(tmp_path / "page.html")["gallery"]
        server.shutdown()
    assert len(seen) == 6
    assert all(item["picture"] for item in seen)


def test_a_run_that_has_published_nothing(one_shard: Path, tmp_path: Path) -> None:
    paths = make_run(tmp_path / "run", 2, 3)
    for path in (*paths.markers.iterdir(), *paths.tasks.iterdir()):
        path.unlink()
    reported("run", "-o", "page.html", cwd=tmp_path)
    assert data_of(tmp_path / "page.html")["gallery"] == []


def test_damage_does_not_break_it(tmp_path: Path, chromium: Browser) -> None:
    paths = make_run(tmp_path / "run", 3, 5)
    paths.sidecar("000001.tar").write_bytes(b"not parquet")
    paths.tar("000000.tar").write_bytes(b"no tar" * 500)
    said = reported("run", "-o", "page.html", cwd=tmp_path)
    assert "000001.parquet: cannot be read" in said
    seen = data_of(tmp_path / "page.html")
    assert seen["runs"][0]["basis"]["unreadable"] == ["000001.tar"]
    assert len(seen["gallery"]) == 10
    with opened(chromium, tmp_path / "page.html") as page:
        assert "000001.tar" in page.locator(".basis").first.inner_text()


def test_wrong_use(two: Two, tmp_path: Path) -> None:
    run = str(two.folder / "plain")
    refused(report(run, cwd=tmp_path), "-o")
    refused(report("-o", "x.html", cwd=tmp_path), "run director")
    refused(report(str(tmp_path), "-o", "x.html", cwd=tmp_path), str(tmp_path), "run.json")
    refused(report(run, "-o", "x.tar", cwd=tmp_path), "x.tar", ".html")
    refused(report(run, "-o", "no/x.html", cwd=tmp_path), "no/x.html")
    refused(report(run, "-o", "x.html", "--samples", "0", cwd=tmp_path), "--samples=0", "5000")
    refused(report(run, "-o", "x.html", "--sample", "9", cwd=tmp_path), "--sample", "--samples")
    assert "default 2000" in report("--help", cwd=tmp_path).stdout
    assert list(tmp_path.iterdir()) == []
