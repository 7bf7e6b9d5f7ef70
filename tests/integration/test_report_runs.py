"""`recaption.report` of large, empty, damaged and captions-only runs."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from browser import browser, opened
from drawing import draw_samples, write_shard
from helpers import children_cpu, launched
from pages import count, data_of, reported
from playwright.sync_api import Browser
from synthetic import make_run

from recaption.config.schema import Image as Rules
from recaption.report.pictures import Wanted, copies


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def test_ten_thousand_shards(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 10_000, 20)
    before = children_cpu()
    said = reported("run", "-o", "page.html", cwd=tmp_path)
    assert children_cpu() - before < 5
    assert "2,000 of 10,000 shards" in said
    seen = data_of(tmp_path / "page.html")
    assert seen["runs"][0]["samples"]["captioned"] == 200_000
    assert seen["runs"][0]["basis"]["shards"] == 2000
    assert not seen["runs"][0]["basis"]["exact"]
    assert len(seen["gallery"]) == 240
    assert sum(item["cells"][0]["flags"] == ["truncated"] for item in seen["gallery"]) >= 100
    assert (tmp_path / "page.html").stat().st_size < 8_000_000


def test_how_many_pictures_and_shards(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 2001, 1)

    def seen(*options: str) -> tuple[int, int]:
        reported("run", *options, "-o", "page.html", cwd=tmp_path)
        data = data_of(tmp_path / "page.html")
        return data["runs"][0]["basis"]["shards"], len(data["gallery"])

    assert seen() == (2000, 240)
    assert seen("--shards", "3") == (3, 3)
    assert seen("--shards=all", "--samples=7") == (2001, 7)


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
