"""The main job with real vLLM and the tiny model, on shards drawn by tests/drawing.py.

An engine takes half a minute to start, so each run is made once and looked at by several tests.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from drawing import Picture, write_shards
from helpers import (
    Source,
    assert_same_samples,
    captions,
    launched,
    markers,
    parse_caption,
    rows,
)

from recaption.model.files import model_folder

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]

SHARDS, SAMPLES = 8, 200
RIGHT = 0.97  # of the single-shape captions
SAME = 0.995  # of the captions with another number of workers
CLEAR = 0.1  # of a third: nearer to a line between two, a shape's place is a matter of taste
RUNS = {  # by number of tasks; at most two engines at a time
    1: ("slurm.tasks=1", "data.workers=1"),
    2: ("slurm.tasks=2", "slurm.parallelism=2", "data.workers=4"),
    4: ("slurm.tasks=4", "slurm.parallelism=2", "task.steal=false", "data.workers=1"),
}
MODEL = ("model=tiny",)

RunOf = Callable[[int], Path]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("tiny") / "scenes"
    return Source(folder, write_shards(folder, SHARDS, SAMPLES))


@pytest.fixture(scope="module")
def run_of(scenes: Source, tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """The run with so many tasks; helpers.launched fails if a process of it is left."""
    done: dict[int, Path] = {}

    def run_of(tasks: int) -> Path:
        if tasks not in done:
            cwd = tmp_path_factory.mktemp(f"tasks{tasks}")
            began = time.monotonic()
            launched(scenes.word, *MODEL, "output.dir=run", *RUNS[tasks], cwd=cwd, timeout=580)
            print(f"{tasks} tasks: {time.monotonic() - began:.0f} s")
            done[tasks] = cwd / "run"
        return done[tasks]

    return run_of


@dataclass
class Score:
    """How many of how many are right."""

    right: int = 0
    total: int = 0

    def add(self, right: bool) -> None:
        self.right += right
        self.total += 1

    @property
    def share(self) -> float:
        return self.right / self.total


def pictures(source: Source) -> dict[str, Picture]:
    return {key: s.picture for key, s in source.samples.items() if s.picture}


def named_right(said: dict[str, str], truth: dict[str, Picture], shapes: int) -> Score:
    score = Score()
    for key, caption in said.items():
        if len(truth[key].shapes) == shapes:
            score.add(parse_caption(caption).names == truth[key].names)
    return score


@pytest.mark.parametrize("tasks", RUNS)
def test_every_picture_is_captioned_by_what_is_in_it(
    scenes: Source, run_of: RunOf, tasks: int
) -> None:
    run = run_of(tasks)
    assert_same_samples(run, scenes.shards)
    said, truth = captions(run), pictures(scenes)
    for shapes in (1, 2, 3):
        score = named_right(said, truth, shapes)
        print(f"{tasks} tasks, {shapes} shapes: {score.right} of {score.total} right")
    single = named_right(said, truth, 1)
    assert single.total >= SHARDS * SAMPLES / 2
    assert single.share >= RIGHT
    assert {m["task"] for m in markers(run).values()} == set(range(tasks))


def test_rows_say_what_the_engine_did(scenes: Source, run_of: RunOf) -> None:
    run = run_of(1)
    for name, samples in scenes.shards.items():
        found = rows(run, name)
        assert [r["key"] for r in found] == [s.key for s in samples]
        assert {r["status"] for r in found} == {"captioned"}
        assert {r["finish_reason"] for r in found} == {"stop"}
        assert all(3 < r["tokens"] < 40 for r in found)
        for row, sample in zip(found, samples, strict=True):
            assert sample.picture
            assert (row["width"], row["height"]) == (sample.picture.width, sample.picture.height)


def test_a_tasks_log_says_each_thing_once(run_of: RunOf) -> None:
    """With four preparation workers; but for what it says every minute."""
    logs = sorted(run_of(2).glob(".recaption/logs/*_log.out"))
    assert len(logs) == 2
    for log in logs:
        lines = [re.sub(r"\d+", "N", line) for line in log.read_text().splitlines()]
        said = Counter(line for line in lines if "images/s" not in line)
        assert (
            said[
                "[transformers] Keyword argument `backend` is not a valid argument for this "
                "processor and will be ignored."
            ]
            == 1
        )
        assert [line for line, times in said.items() if times > 1] == []
        assert not any("leaked" in line for line in lines)


def test_one_and_four_workers_give_the_same_captions(scenes: Source, run_of: RunOf) -> None:
    """Numerics may turn a close call; that no picture gets another's caption is exact."""
    one, four = captions(run_of(1)), captions(run_of(2))
    assert list(one) == list(four)
    differing = [key for key in one if one[key] != four[key]]
    print(f"{len(differing)} of {len(one)} captions differ")
    assert len(differing) <= (1 - SAME) * len(one)
    for key in differing:
        a, b = parse_caption(one[key]).names, parse_caption(four[key]).names
        assert len(a) == len(b), (key, one[key], four[key])
        for (color, kind), (other_color, other_kind) in zip(a, b, strict=True):
            assert color == other_color or kind == other_kind, (key, one[key], four[key])


@pytest.fixture(scope="module")
def detailed(scenes: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two shards with the detailed prompt."""
    cwd = tmp_path_factory.mktemp("detailed")
    words = ("data.range=0-1", "prompt=detailed", "output.dir=run")
    launched(scenes.word, *MODEL, *words, cwd=cwd, timeout=580)
    return cwd / "run"


def test_two_engines_ask_both_prompts_of_a_model_of_ones_own(
    scenes: Source, run_of: RunOf, detailed: Path, tmp_path: Path
) -> None:
    """Every answer is the one that a run of that prompt alone gave, but for close calls."""
    shutil.copytree(model_folder("builtin:tiny"), tmp_path / "copy")
    own = ("model.path=copy", "model.name=own", "model.max_model_len=512")
    words = ("prompts=[short,detailed]", "engine.replicas=2", "data.range=0-1", "output.dir=run")
    words += ("model.processor.backend=pil", "data.workers=1")
    launched(scenes.word, *own, *words, cwd=tmp_path, timeout=580)
    run = tmp_path / "run"
    found = {r["key"]: r for name in list(scenes.shards)[:2] for r in rows(run, name)}
    assert len(found) == 2 * SAMPLES
    assert {m["model"]["name"] for m in markers(run).values()} == {"own"}
    log = (run / ".recaption/tasks").glob("0-0@*.jsonl")
    starts = [json.loads(line) for path in log for line in path.read_text().splitlines()]
    assert next(e for e in starts if e["event"] == "start")["engines"] == 2
    for name, alone in (("short", captions(run_of(1))), ("detailed", captions(detailed))):
        differing = [k for k, row in found.items() if row[f"caption_{name}"] != alone[k]]
        print(f"{name}: {len(differing)} of {len(found)} captions differ")
        assert len(differing) <= (1 - SAME) * len(found) + 2


def test_the_detailed_prompt_gets_detailed_captions(scenes: Source, detailed: Path) -> None:
    chosen = dict(list(scenes.shards.items())[:2])
    assert_same_samples(detailed, chosen)
    scores = {name: Score() for name in ("names", "sizes", "places", "backgrounds")}
    truth = pictures(scenes)
    for key, caption in captions(detailed).items():
        said, picture = parse_caption(caption), truth[key]
        scores["backgrounds"].add(said.background == picture.background)
        if len(picture.shapes) > 1:
            continue
        (shape,) = picture.shapes
        scores["names"].add(said.names == picture.names)
        scores["sizes"].add(said.sizes == [shape.size])
        if all(CLEAR < at * 3 % 1 < 1 - CLEAR for at in (shape.x, shape.y)):
            scores["places"].add(said.places == [shape.place])
    for name, score in scores.items():
        print(f"detailed, {name}: {score.right} of {score.total} right")
        assert score.total >= 100
        assert score.share >= RIGHT, name
