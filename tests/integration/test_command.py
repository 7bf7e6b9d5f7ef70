"""The commands themselves: help, what they show, and what they do not load."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from drawing import write_shards
from helpers import launch, launched, started, wait_until

from recaption.launch.watch import follow
from recaption.run.paths import RunPaths
from recaption.run.record import read_run

HEAVY = "{'vllm', 'torch', 'transformers', 'pyarrow', 'datasets'}"


def loaded(*words: str, cwd: Path) -> set[str]:
    """Which heavy packages `recaption.launch WORDS` imports."""
    code = (
        "import sys\n"
        "from recaption.launch import main\n"
        "try:\n"
        "    assert main(sys.argv[1:]) == 0\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"print('LOADED', *({HEAVY} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split()[1:])


def test_help_answers_in_two_seconds(tmp_path: Path) -> None:
    """Of CPU time, which is that of the clock where nothing else runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = launched("--help", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert "data.shards=" in result.stdout
    assert "qwen3-vl-8b" in result.stdout
    assert result.stderr == ""
    assert loaded("--help", cwd=tmp_path) == set()


def test_a_launch_loads_no_model_code(one_shard: Path, tmp_path: Path) -> None:
    """Not even one for the real engine, up to the point where it submits."""
    words = (f"data.shards={one_shard}", "model=tiny", "dry_run=true")
    assert not loaded(*words, cwd=tmp_path) - {"pyarrow"}


@pytest.mark.parametrize("words", [("--help",), ("launch", "--help"), ("--version",)])
def test_the_console_script(tmp_path: Path, words: tuple[str, ...]) -> None:
    script = Path(sys.executable).parent / "recaption"
    result = subprocess.run([script, *words], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert result.stdout
    assert result.stderr == ""


def test_cfg_job_shows_the_composed_configuration(one_shard: Path, tmp_path: Path) -> None:
    words = (f"data.shards={one_shard}", "engine=fake", "prompt=detailed", "slurm.tasks=3")
    result = launched("--cfg", "job", *words, cwd=tmp_path)
    shown = yaml.safe_load(result.stdout)
    assert shown["data"]["shards"] == str(one_shard)
    assert shown["prompt"]["name"] == "detailed"
    assert shown["slurm"]["tasks"] == 3
    assert shown["output"]["dir"] == "outputs/${data.name}/${model.name}/${prompt.name}-fake"
    resolved = yaml.safe_load(launched("--cfg=job", "--resolve", *words, cwd=tmp_path).stdout)
    assert resolved["output"]["dir"] == "outputs/set/tiny/detailed-fake"
    assert not list(tmp_path.iterdir())


def test_cfg_job_needs_no_shards(tmp_path: Path) -> None:
    shown = yaml.safe_load(launched("--cfg", "job", cwd=tmp_path).stdout)
    assert shown["model"]["name"] == "tiny"


def test_dry_run_shows_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 5, 2, side=128)
    before = set(tmp_path.rglob("*"))
    words = ("data.shards=in/*.tar", "engine=fake", "slurm.tasks=2", "dry_run=true")
    out = launched(*words, "data.range=0-2", cwd=tmp_path).stdout
    assert "outputs/in/tiny/short-fake" in out
    assert "task 0: " in out
    assert "task 1: " in out
    assert all(out.count(f"0000{i}.tar") == 1 for i in range(3))
    assert "00003.tar" not in out
    assert set(tmp_path.rglob("*")) == before


def test_a_run_in_the_background(tmp_path: Path) -> None:
    """wait=false leaves the tasks running and returns; they finish on their own."""
    write_shards(tmp_path / "in", 2, 4, side=128)
    words = ("data.shards=in/*.tar", "engine=fake", "output.dir=run", "wait=false")
    with started(*words, cwd=tmp_path) as process:
        out, err = process.popen.communicate(timeout=60)
        assert process.popen.returncode == 0, err
        assert "published" not in out
        sizes = tmp_path / "run/sizes.json"
        wait_until(sizes.exists, 60, "the run was not finished in the background")
        assert json.loads(sizes.read_bytes()) == {"00000.tar": 4, "00001.tar": 4}
        wait_until(lambda: not process.left(), 10, lambda: f"left: {process.left()}")


def test_lines_of_progress_go_where_no_terminal_is(one_shard: Path, tmp_path: Path) -> None:
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run")
    result = launch(*words, cwd=tmp_path)
    assert "1 of 1 shards, 6 captions in" in result.stderr
    assert "\r" not in result.stderr


def test_progress_counts_what_its_rate_counts(one_shard: Path, tmp_path: Path) -> None:
    """Samples that end without a caption are part of the speed, so they are part of the line."""
    words = (f"data.shards={one_shard}", "engine=fake", "model.min_side=200", "output.dir=run")
    result = launch(*words, cwd=tmp_path)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("1 of 1 shards, ")]
    assert line.startswith("1 of 1 shards, 0 captions in ")
    assert ", 6 samples without one" in line


def test_the_last_line_does_not_wait_for_an_attempt_that_was_killed(
    one_shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a one never reports its end; here every other attempt of the submission has."""
    launch(f"data.shards={one_shard}", "engine=fake", "output.dir=run", cwd=tmp_path)
    paths = RunPaths(tmp_path / "run")
    (log,) = paths.tasks.glob("*.jsonl")
    start = log.read_text().splitlines(keepends=True)[0]
    paths.task_log(0, 0, "killed").write_text(start)
    (marker,) = paths.markers.glob("*.json")
    answers = iter([True, False])

    def alive() -> bool:
        running = next(answers)
        marker.rename(hidden) if running else hidden.rename(marker)
        return running

    hidden = tmp_path / "marker"
    follow(paths, read_run(paths), [0], 0, alive)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("0 of 1 shards, ")
    assert last.startswith("1 of 1 shards, 6 captions in ")
