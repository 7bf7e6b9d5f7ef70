"""Keys go on working by the names that earlier versions gave them, with one warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recaption.config import renamed
from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import check_key, prepare
from recaption.config.records import typed_config
from recaption.config.renamed import RENAMED, renamed_record
from recaption.config.schema import Config, Task
from recaption.errors import UserError
from recaption.run.folders import make_folders
from recaption.run.paths import RunPaths
from recaption.run.record import Submission, plain_config, read_submission, write_submission

SHARDS = "data.shards=/d/x.tar"
OTHER = {
    "steal": False,
    "attempts": 3,
    "metrics": "/tmp/figures",
    "flush_seconds": 0.5,
    "lease_seconds": 7.0,
}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renamed, "_warned", set())


def config_of(*words: str, config_dir: Path | None = None, version: str | None = None) -> Config:
    folder = str(config_dir) if config_dir else None
    composed = compose_config(prepare([SHARDS, *words]), config_dir=folder, version=version)
    return to_config(composed)


def words(section: str) -> list[str]:
    return [f"{section}.{name}={str(value).lower()}" for name, value in OTHER.items()]


def preset(folder: Path, text: str, group: str = "slurm") -> Path:
    (folder / group).mkdir(exist_ok=True)
    (folder / group / "own.yaml").write_text(text)
    return folder


def test_every_renamed_key_is_there_by_its_new_name() -> None:
    assert set(RENAMED) == {f"slurm.{name}" for name in OTHER}
    for old, new in RENAMED.items():
        assert check_key(old) == check_key(new)


@pytest.mark.parametrize("version", [None, "0.1.0"])
def test_words_by_old_names_do_the_same_and_one_line_names_the_new(
    version: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    new = config_of(*words("task"), version=version)
    assert new.task == Task(**OTHER)
    assert capsys.readouterr().err == ""
    assert config_of(*words("slurm"), version=version) == new
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert all(f"{old} is now {now}" in line for old, now in RENAMED.items())
    config_of(*words("slurm"), version=version)
    assert capsys.readouterr().err == "", "it is said once"


@pytest.mark.parametrize("version", [None, "0.1.0"])
def test_presets_by_old_names_do_the_same(
    version: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    then = "kind: local\nattempts: 4\nlease_seconds: 6.0\nmetrics: null\npartition: null\n"
    site = preset(tmp_path, then)
    task = config_of("slurm=own", config_dir=site, version=version).task
    assert task == Task(attempts=4, lease_seconds=6.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "slurm.attempts is now task.attempts" in line
    assert "slurm.steal" not in line
    for word in ("task.attempts=9", "slurm.attempts=9"):  # the command line is above presets
        assert config_of("slurm=own", word, config_dir=site).task.attempts == 9


def test_a_preset_of_a_site_may_say_both_sections(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = preset(tmp_path, "# @package _global_\nslurm: {kind: local}\ntask: {attempts: 4}\n")
    assert config_of("slurm=own", config_dir=site).task.attempts == 4
    assert capsys.readouterr().err == ""


def test_both_names_are_refused(tmp_path: Path) -> None:
    for given in (["slurm.steal=true", "task.steal=true"], ["task.steal=true", "slurm.steal=true"]):
        with pytest.raises(UserError, match=r"slurm\.steal: .*task\.steal.* alone"):
            config_of(*given)
    with pytest.raises(UserError, match=r"slurm\.steal: given twice"):
        config_of("slurm.steal=true", "slurm.steal=true")
    text = "# @package _global_\nslurm: {kind: local, steal: false}\ntask: {steal: true}\n"
    site = preset(tmp_path, text)
    with pytest.raises(UserError, match=r"slurm\.steal: .*task\.steal.* alone"):
        config_of("slurm=own", config_dir=site)


def test_a_key_by_two_spellings_of_today() -> None:
    for given in (["class=1", "class_=2"], ["class_=1", "class=2"]):
        with pytest.raises(UserError, match=r"^watermark\.class_?: given twice"):
            prepare([f"watermark.{word}" for word in given])


@pytest.mark.parametrize("version", [None, "0.1.0"])
def test_references_to_old_names_are_followed(
    version: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "kind: local\nattempts: 4\nparallelism: ${slurm.attempts}\n"
        "setup: ['export N=${slurm.steal}${slurm.parallelism}']\n"
    )
    site = preset(tmp_path, text)
    config = config_of("slurm=own", config_dir=site, version=version)
    assert (config.slurm.parallelism, config.task.attempts) == (4, 4)
    assert config.slurm.setup == [f"export N={config.task.steal}4"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.count("slurm.attempts is now task.attempts") == 1
    assert line.count("slurm.steal is now task.steal") == 1
    text = r"output.dir=/d/${slurm.attempts}"
    assert config_of(text, version=version).output.dir == f"/d/{Task().attempts}"


@pytest.mark.parametrize(
    ("text", "key"),
    [("kind: local\nattempts: many\n", "slurm.attempts"), ("stael: true\n", "slurm.stael")],
)
def test_a_mistake_in_a_preset_is_named_as_it_is_written(
    text: str, key: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{key}: "):
        config_of("slurm=own", config_dir=preset(tmp_path, text))


def as_recorded_then(config: Config) -> dict[str, Any]:
    """A configuration as 0.1.0 recorded it, as far as these keys go."""
    record = plain_config(config)
    record["slurm"] |= record.pop("task")
    return record


def test_a_submission_that_0_1_0_made_is_read_by_the_new_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(*words("task"), "slurm=cluster", "output.dir=/tmp/x")
    paths = RunPaths(tmp_path)
    make_folders(paths, None)
    write_submission(paths, Submission(0, as_recorded_then(config), [0], [[0]], 0.0), "tag")
    stored = json.loads(paths.submission(0).read_bytes())["config"]
    assert stored["slurm"]["attempts"] == 3
    read = read_submission(paths, 0).config
    assert read["task"] == OTHER
    assert typed_config(read).task == config.task
    assert not set(OTHER) & set(read["slurm"])
    assert renamed_record(read) == read
    assert capsys.readouterr().err == ""
