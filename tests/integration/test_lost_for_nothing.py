"""What must not end a task, nor cost a caption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from drawing import draw_samples, write_shard, write_shards
from helpers import Completed, launch, launched, markers, refused, rows
from tars import plain_members, write_tar

Launch = Callable[..., Completed]
ROOM = 205  # bytes of a name, where the file system's longest is 255


def test_names_that_begin_like_others_or_are_long_and_a_folder_of_figures_that_is_missing(
    tmp_path: Path,
) -> None:
    """Journals of `a@b` are none of `a`, whose shard is done long before."""
    sizes = {"a": 5, "a@b": 60, "a.tar@b": 5, "画" * (ROOM // 3): 5}
    for number, (name, count) in enumerate(sizes.items()):
        write_tar(tmp_path / f"in/{name}.tar", plain_members(count, number))
    words = ("data.shards=in/*.tar", "engine=fake", "engine.rate=60", "output.dir=run")
    words += (f"engine.record={tmp_path}/record", "task.metrics=nowhere")
    launched(*words, "task.flush_seconds=0.1", cwd=tmp_path)
    assert {name: len(rows(tmp_path / "run", name)) for name in markers(tmp_path / "run")} == {
        f"{name}.tar": count for name, count in sizes.items()
    }
    assert len((tmp_path / "record").read_text().splitlines()) == sum(sizes.values())
    (log,) = (tmp_path / "run/.recaption/logs").glob("*_log.out")
    assert log.read_text().count("/nowhere: cannot be written") == 1
    verified = launch("run", cwd=tmp_path, module="verify")
    assert verified.returncode == 0, verified


def test_a_name_without_room_for_ours_is_refused(launch_here: Launch, tmp_path: Path) -> None:
    name = "b" * (ROOM + 1)
    (tmp_path / "in").mkdir()
    for stem in ("a", name):
        write_shard(tmp_path / f"in/{stem}.tar", draw_samples(1, 0, side=96))
    result = launch_here("data.shards=in/*.tar", "engine=fake", "output.dir=run", cwd=tmp_path)
    refused(result, f"in/{name}.tar", f"{ROOM + 1} bytes", f"room for {ROOM}")
    assert not (tmp_path / "run").exists()


def attempts(run: Path, submission: int, *events: dict[str, object]) -> None:
    """Logs of five attempts at a submission's first task, as they were left by 0.1.0."""
    for number in range(5):
        label = f"{submission}-0"
        lines = [{**event, "time": number + 0.5} for event in ({"event": "start"}, *events)]
        path = run / f".recaption/tasks/{label}@{label}-{number}-0123456789ab.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_attempts_that_were_told_to_stop_before_the_engines_were_ready_do_not_count(
    tmp_path: Path,
) -> None:
    """Preempted five times, then killed five times."""
    write_shards(tmp_path / "in", 3, 2, side=96, plain=True)
    words = ("data.shards=in/*.tar", "engine=fake", "output.dir=run", "data.workers=1")
    launched(*words, "data.range=0", cwd=tmp_path)
    beat = {"event": "beat", "engine_seconds": 0.0, "settled": 0, "seconds": 9.0}
    attempts(tmp_path / "run", 1, beat, {"event": "stop", "why": "drain", "reason": ""})
    launched(*words, "data.range=1", cwd=tmp_path)
    attempts(tmp_path / "run", 2, {**beat, "engine_seconds": 9.5})
    result = launch(*words, "data.range=2", cwd=tmp_path)
    assert result.returncode == 1
    assert "no shard and no sample finished in 5 attempts" in result.stderr
    assert "5 of them were killed, as it seems for want of memory (slurm.mem)" in result.stderr


def test_more_tasks_than_places_without_waiting(launch_here: Launch, tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 3, 1, side=96, plain=True)
    words = ("data.shards=in/*.tar", "engine=fake", "output.dir=run", "slurm.tasks=3")
    result = launch_here(*words, "wait=false", "slurm.parallelism=2", cwd=tmp_path)
    refused(result, "wait=false", "room for 2", "slurm.tasks=3")
    assert not result.stdout
    assert not list((tmp_path / "run/.recaption/submissions").iterdir())
