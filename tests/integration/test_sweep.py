"""-m: several runs from one command, with the fake engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from helpers import Completed, captions, launch, refused

Launch = Callable[..., Completed]


def test_every_point_has_a_directory_of_its_own(one_shard: Path, tmp_path: Path) -> None:
    words = (f"data.shards={one_shard}", "engine=fake", "prompt=short,detailed")
    result = launch("-m", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    runs = [tmp_path / f"outputs/set/tiny/{p}-fake" for p in ("short", "detailed")]
    short, detailed = (captions(run) for run in runs)
    assert list(short) == list(detailed)
    assert not set(short.values()) & set(detailed.values())
    table = result.stdout[result.stdout.index("point ") :].splitlines()
    assert [line.split()[0] for line in table[1:]] == ["prompt=short", "prompt=detailed"]
    assert [line.split()[-1] for line in table[1:]] == [str(run) for run in runs]
    assert not (tmp_path / "multirun").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"outputs"}


def test_two_points_in_one_directory_are_refused_before_anything(
    launch_here: Launch, one_shard: Path, tmp_path: Path
) -> None:
    words = (f"data.shards={one_shard}", "engine=fake")
    result = launch_here("-m", *words, "sampling.seed=1,2", cwd=tmp_path)
    refused(result, "output.dir", "sampling.seed")
    refused(
        launch_here("-m", *words, "prompt=short,detailed", "output.dir=x", cwd=tmp_path), "prompt"
    )
    assert not list(tmp_path.iterdir())


def test_a_point_whose_key_is_in_output_dir_is_a_run_of_its_own(
    one_shard: Path, tmp_path: Path
) -> None:
    words = (f"data.shards={one_shard}", "engine=fake", "sampling.seed=1,2")
    result = launch("-m", *words, "output.dir=seed-${sampling.seed}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"seed-1", "seed-2"}


def test_a_refused_point_does_not_stop_the_others(one_shard: Path, tmp_path: Path) -> None:
    """The worst exit code wins: 2, where one is refused and one succeeds."""
    (tmp_path / "short").mkdir()
    (tmp_path / "short/foreign.tar").touch()
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=${prompt.name}")
    result = launch("-m", *words, "prompt=short,detailed", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "prompt=short" in result.stderr
    assert "foreign.tar" in result.stderr
    assert len(captions(tmp_path / "detailed")) == 6
    assert "refused" in result.stdout


def test_a_failing_point_does_not_stop_the_others(one_shard: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(one_shard.read_bytes()[:3000])
    words = ("engine=fake", "data.tries=1", "output.dir=run-${data.max_samples}")
    result = launch("-m", f"data.shards={damaged}", *words, "data.max_samples=1,2", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert result.stdout.count("incomplete") == 2


def test_a_mistake_in_one_value_is_refused(
    launch_here: Launch, one_shard: Path, tmp_path: Path
) -> None:
    words = (f"data.shards={one_shard}", "engine=fake")
    refused(launch_here("-m", *words, "prompt=short,dtailed", cwd=tmp_path), "dtailed", "detailed")
    refused(launch_here("-m", *words, "prompt=[short", cwd=tmp_path), "prompt")
    assert not list(tmp_path.iterdir())
