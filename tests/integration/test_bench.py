"""`recaption.bench` with the fake engine: every figure is there and fits the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import launch, read_run, refused

from recaption.bench import command
from recaption.bench import main as bench

WORDS = ("engine=fake", "--images", "64", "--shards", "4", "--size", "64x48")


def test_engine_and_pipeline(tmp_path: Path) -> None:
    words = (*WORDS, "engine.tensor_parallel=2", "--json", "figures.json")
    result = launch(*words, cwd=tmp_path, module="bench")
    assert result.returncode == 0, result
    figures = json.loads((tmp_path / "figures.json").read_text())
    engine, pipeline = figures["engine"], figures["pipeline"]
    assert engine["images"] == pipeline["images"] == 64
    assert engine["rate"] == pytest.approx(64 / engine["seconds"])
    assert figures["pipeline/engine"] == pytest.approx(pipeline["rate"] / engine["rate"])
    details = pipeline["details"]
    assert details["engines"] == 1
    assert 0 <= details["starved"] <= 1
    assert details["peak_memory_mb"] > 20
    assert details["cpu_ms_per_image"]["task"] >= 0
    table = result.stdout
    assert f"{pipeline['rate']:.2f}" in table
    assert figures["gpus"] == 2
    hours = 2 * 100_000_000 / pipeline["rate"] / 3600
    assert f"take {hours:,.0f} GPU-hours" in table
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"], "nothing else is left"


def test_an_engine_is_starved_only_while_there_is_something_to_give(tmp_path: Path) -> None:
    """64 pictures never fill a batch of 512: that they run out is not the pipeline's fault."""
    words = (*WORDS, "engine.rate=20", "--parts", "pipeline", "--json", "figures.json")
    result = launch(*words, cwd=tmp_path, module="bench")
    assert result.returncode == 0, result
    details = json.loads((tmp_path / "figures.json").read_text())["pipeline"]["details"]
    assert details["ending_seconds"] > 2
    assert sum(details["starved_seconds"].values()) < details["ending_seconds"]
    assert set(details["starved_seconds"]) == {"first quarter", "middle half", "last quarter"}


SLOW_AT_FIRST = """
import time
import PIL.Image
opened = PIL.Image.open
def open_slowly(*arguments, **options):
    global slept
    if "slept" not in globals():
        slept = time.sleep(9)
    return opened(*arguments, **options)
PIL.Image.open = open_slowly
"""


def test_no_worker_is_cold_when_the_clock_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has prepared something before, however many there are: here the first one takes 9 s."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(SLOW_AT_FIRST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"), prepend=os.pathsep)
    words = (*WORDS, "data.workers=20", "--parts", "pipeline", "--json", "figures.json")
    result = launch(*words, cwd=tmp_path, module="bench")
    assert result.returncode == 0, result
    pipeline = json.loads((tmp_path / "figures.json").read_text())["pipeline"]
    assert pipeline["details"]["workers"] == 20
    assert pipeline["seconds"] < 9


def test_what_seeds_cost(tmp_path: Path) -> None:
    seeds = ("sampling.temperature=0.5", "sampling.seed=1", "--parts", "engine")
    result = launch(*WORDS, *seeds, "--json", "figures.json", cwd=tmp_path, module="bench")
    assert result.returncode == 0, result
    figures = json.loads((tmp_path / "figures.json").read_text())
    share = figures["engine"]["rate"] / figures["unseeded"]["rate"]
    assert figures["engine/unseeded"] == pytest.approx(share)
    assert "engine/unseeded" in result.stdout
    assert "pipeline" not in figures


def test_the_baselines_pictures_and_the_projection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def figures_of(*given: Any) -> dict[str, Any]:
        asked.append(given[-1])
        part = {"rate": 10.0, "middle": 0.0, "tokens_per_second": 1.0, "images": 9, "seconds": 1.0}
        return {"device": "none", "gpus": 2, "pipeline": {**part, "details": {"engines": 2}}}

    monkeypatch.setattr(command, "Ours", lambda *_: None)
    monkeypatch.setattr(command, "figures_of", figures_of)
    words = ["engine=fake", "--images=9", "--shards=1", "--size=64x48", f"--folder={tmp_path}"]
    assert bench(words) == 0
    assert (
        "100,000,000 images take 5,556 GPU-hours, 86.8 hours on 64 GPUs" in capsys.readouterr().out
    )
    assert bench([*words, "--baseline-images=4", "--for-images=720000", "--for-gpus=8"]) == 0
    assert "720,000 images take 40 GPU-hours, 5.0 hours on 8 GPUs" in capsys.readouterr().out
    assert asked == [3, 4]


def test_a_folder_keeps_what_is_in_it(tmp_path: Path) -> None:
    """Two runs in one folder: what was there stays, the pictures are made once."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    words = (*WORDS, "--parts", "pipeline", "--folder", str(tmp_path))
    for _ in range(2):
        assert launch(*words, cwd=tmp_path, module="bench").returncode == 0
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert [name for name in kept if not name.startswith("recaption-bench-")] == ["out", "shards"]
    assert len(kept) == 4, "each run has a folder of its own"


def test_all_prompts_are_asked_and_presets_of_ones_own_are_found(tmp_path: Path) -> None:
    (tmp_path / "conf/prompt").mkdir(parents=True)
    (tmp_path / "conf/prompt/mood.yaml").write_text("name: mood\ntext: What is the mood?\n")
    words = (*WORDS, "--config-dir", "conf", "--parts", "pipeline", "--folder", "kept")
    result = launch(
        *words, "prompts=[short,mood]", "--json", "figures.json", cwd=tmp_path, module="bench"
    )
    assert result.returncode == 0, result
    assert json.loads((tmp_path / "figures.json").read_text())["prompts"] == ["short", "mood"]
    (run,) = (tmp_path / "kept").glob("recaption-bench-*/ours")
    for members in read_run(run)["64x48-16-0-00000.tar"].values():
        fields = json.loads(members["json"])
        assert fields["caption_short"] != fields["caption_mood"]


@pytest.mark.parametrize(
    "words",
    [
        ("--for-gpus", "0"),
        ("--shards", "0"),
        ("--images", "0"),
        ("--size", "0x0"),
        ("--json", "/nowhere/figures.json"),
        ("--folder", "/proc/here"),
        ("--config-dir", "/nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(
    words: tuple[str, str], tmp_path: Path
) -> None:
    result = launch("engine=fake", *words, cwd=tmp_path, module="bench")
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert words[0] in last
    assert words[1].split("/figures")[0] in last


def test_wrong_use(tmp_path: Path) -> None:
    refused(launch(*WORDS, "--parts", "motor", cwd=tmp_path, module="bench"), "motor", "pipeline")
    refused(launch("engine=fake", "--size", "64", cwd=tmp_path, module="bench"), "64", "640x480")
    refused(launch("engine=faux", cwd=tmp_path, module="bench"), "engine", "faux", "fake")
