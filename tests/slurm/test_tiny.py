"""Real vLLM with the tiny model in an array on Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawing import Sample, write_shards
from helpers import assert_same_samples, captions, markers, parse_caption
from slurm.lab import Lab
from slurm.runs import Run

TASKS, SHARDS, SAMPLES = 2, 8, 200


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_the_tiny_model_preempted_once(lab: Lab, tmp_path: Path) -> None:
    source = write_shards(tmp_path / "in", SHARDS, SAMPLES)
    words = [f"data.shards={tmp_path}/in/*.tar", f"slurm.tasks={TASKS}", "model=tiny"]
    words += ["slurm.cpus=1", "slurm.mem=8G", "engine.max_num_seqs=16", "engine.waiting=16"]
    run = Run.launch(lab, tmp_path / "run", *words, engine="vllm")
    total = SHARDS * SAMPLES
    lab.wait_until(
        lambda: all(
            run.attempts(task)[-1:] and run.attempts(task)[-1].captioned for task in (0, 1)
        ),
        240,
        "both engines at work",
    )
    lab.wait_until(lambda: run.captioned() > 0.2 * total, 120, "a fifth of the captions")
    lab.preempt(0.5)
    lab.wait_until(lambda: max(a.restart for a in run.attempts()) == 1, 40, "the next attempt")
    run.wait(300)
    assert run.pids() == []
    assert [a.stop in ("drain", "now") for a in run.attempts() if a.restart == 0] == [True] * TASKS
    assert sorted(markers(run.folder)) == sorted(source)
    assert_same_samples(run.folder, source)
    assert run.captioned() == total, "a caption was made twice, though no task was killed"
    assert right(source, captions(run.folder)) >= 0.97


def right(source: dict[str, list[Sample]], said: dict[str, str]) -> float:
    """How many of the single-shape scenes have the right shape and color."""
    scenes = [s for samples in source.values() for s in samples]
    single = [s for s in scenes if s.picture is not None and len(s.picture.shapes) == 1]
    assert len(single) > 200
    hits = [s for s in single if s.picture and parse_caption(said[s.key]).names == s.picture.names]
    return len(hits) / len(single)
