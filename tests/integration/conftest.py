"""Shards and runs that many tests look at; a run costs seconds, so each is made once."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from drawing import Sample, array_bytes, write_shard, write_shards
from helpers import Completed, Made, Source, launched
from PIL import Image

from recaption.__main__ import run
from recaption.launch import main as launch_main

Refusal = Callable[..., Completed]


def picture(number: int, kind: str = "PNG", side: int = 32) -> bytes:
    """A small picture that is like no other."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, 40, 90)).save(file, kind, quality=95)
    return file.getvalue()


def odd_samples() -> list[Sample]:
    """Samples that the contract has a rule for."""

    def fields(**values: object) -> bytes:
        return json.dumps(values).encode()

    ours = {"caption": "c", "caption_original": 1, "recaption_model": [], "recaption_new": None}
    samples = {
        "whole": {"jpg": picture(1, "JPEG"), "txt": b"alt", "json": fields(caption="j", a=1)},
        "from_json": {"jpg": picture(2), "json": fields(caption="from json")},
        "bare": {"png": picture(3, "WEBP")},
        "ours": {"json": fields(**ours, watermark_score=0.5), "webp": picture(4, "JPEG")},
        "taken": {"jpeg": picture(5), "json": fields(caption="a", source_caption="b")},
        "list": {"jpg": picture(6), "json": b"[1, 2]"},
        "broken": {"jpg": picture(7), "json": b'{"caption": '},
        "null": {"jpg": picture(8), "json": fields(caption=None, alt=None)},
        "latin": {"jpg": picture(9), "txt": "café".encode("latin-1")},
        "wide": {"jpg": picture(10), "txt": "画像 🙂\n".encode(), "npy": array_bytes(5)},
        "two": {"png": picture(11, side=48), "cls": b"7", "jpg": picture(12)},
        "no_image": {"txt": b"only text", "cls": b"1"},
        "no_picture": {"jpg": b"<html>not found</html>", "txt": b"t"},
        "empty": {"jpg": b"", "json": fields(caption="e")},
        "last": {"txt": b"end", "jpg": picture(13)},
    }
    return [Sample(f"odd/{key}", members) for key, members in samples.items()]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Three shards of scenes, and one of odd samples."""
    folder = tmp_path_factory.mktemp("source") / "drawn"
    shards = write_shards(folder, 3, 16)
    shards["odd.tar"] = odd_samples()
    write_shard(folder / "odd.tar", shards["odd.tar"])
    return Source(folder, shards)


@pytest.fixture(scope="session")
def made(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A whole fake run with one preparation worker; tests only read it."""
    cwd = tmp_path_factory.mktemp("made")
    words = (source.word, "engine=fake", "data.workers=1", "output.dir=run")
    return Made(cwd / "run", launched(*words, cwd=cwd))


@pytest.fixture(scope="session")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small plain shard for tests of everything else."""
    folder = tmp_path_factory.mktemp("one") / "set"
    write_shards(folder, 1, 6, side=128, plain=True)
    return folder / "00000.tar"


@pytest.fixture
def launch_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refusal:
    """helpers.launch within this process, for launches that end before any task: ten times as fast."""

    def launch_here(*words: str, cwd: Path) -> Completed:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["launch", *words])
        with pytest.raises(SystemExit) as end:
            run(launch_main)
        out, err = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return Completed(list(words), end.value.code, out, err)

    return launch_here
