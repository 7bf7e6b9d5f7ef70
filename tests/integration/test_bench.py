"""`recaption.bench` with the fake engine: every figure is there and fits the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import launch, refused

WORDS = ("engine=fake", "--images", "64", "--shards", "4", "--size", "64x48")


def test_engine_and_pipeline(tmp_path: Path) -> None:
    result = launch(*WORDS, "--json", "figures.json", cwd=tmp_path, module="bench")
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
    assert "GPU-hours" in table
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"], "nothing else is left"


def test_what_seeds_cost(tmp_path: Path) -> None:
    seeds = ("sampling.temperature=0.5", "sampling.seed=1", "--parts", "engine")
    result = launch(*WORDS, *seeds, "--json", "figures.json", cwd=tmp_path, module="bench")
    assert result.returncode == 0, result
    figures = json.loads((tmp_path / "figures.json").read_text())
    share = figures["engine"]["rate"] / figures["unseeded"]["rate"]
    assert figures["engine/unseeded"] == pytest.approx(share)
    assert "engine/unseeded" in result.stdout


def test_wrong_use(tmp_path: Path) -> None:
    refused(launch(*WORDS, "--parts", "motor", cwd=tmp_path, module="bench"), "motor", "pipeline")
    refused(launch("engine=fake", "--size", "64", cwd=tmp_path, module="bench"), "64", "640x480")
    refused(launch("engine=faux", cwd=tmp_path, module="bench"), "engine", "faux", "fake")
