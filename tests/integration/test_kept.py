"""What a run is made with is in the run, whatever becomes of the files that it was given."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import launch, launched, markers, refused, started, wait_until

FAKE = ("engine=fake", "output.dir=run", "data.shards=in/*.tar")
TEMPLATE = "model.chat_template=template.jinja"


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A run with a template of its own, one of whose two shards is done."""
    write_shards(tmp_path / "in", 2, 4, side=128)
    (tmp_path / "template.jinja").write_text("first")
    launched(*FAKE, TEMPLATE, "data.range=0", cwd=tmp_path)
    return tmp_path


def test_a_template_that_was_edited_is_not_used(half: Path) -> None:
    """The same launch is refused; a retry, from another folder too, has the run's own."""
    (half / "template.jinja").write_text("second")
    refused(launch(*FAKE, TEMPLATE, cwd=half), "model.chat_template", "run")
    (half / "elsewhere").mkdir()
    result = launch(
        "../run", "data.range=0-", "data.tries=3", cwd=half / "elsewhere", module="retry"
    )
    assert result.returncode == 0, result
    assert len(markers(half / "run")) == 2
    given = f"model.chat_template={half}/template.jinja"
    refused(launch("run", given, cwd=half, module="retry"), "model.chat_template")


def test_a_run_of_before_is_checked_when_a_task_starts(half: Path) -> None:
    """0.1.0 kept no copy: the file itself has to be the one that the run was made with."""
    shutil.rmtree(half / "run/.recaption/kept")
    (half / "run/.recaption/shards/00000.json").unlink()
    (half / "template.jinja").write_text("second")
    refused(launch("run", "data.range=0-", cwd=half, module="retry"), "model.chat_template")
    result = launch("run", cwd=half, module="retry")
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if "model.chat_template" in line]
    assert "is not the file that the run was made with" in line
    assert not markers(half / "run")
    (half / "template.jinja").write_text("first")
    assert launch("run", cwd=half, module="retry").returncode == 0


def test_each_task_unpacks_foreign_code_on_its_own(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 2, 8, side=128)
    words = (
        "model.trust_remote_code=true",
        "engine.rate=2",
        "slurm.tasks=2",
        "slurm.parallelism=2",
    )
    with started(*FAKE, *words, cwd=tmp_path) as process:

        def places() -> set[str]:
            found = set()
            for pid, _ in process.left():
                try:
                    content = Path(f"/proc/{pid}/environ").read_bytes()
                except OSError:
                    continue
                found |= {v for v in content.split(b"\0") if v.startswith(b"HF_MODULES_CACHE=")}
            return {v.decode().partition("=")[2] for v in found}

        wait_until(lambda: len(places()) == 2, 60, lambda: f"{places()}")
        folders = places()
        assert all(os.path.isdir(folder) for folder in folders)
        assert process.finish(120).returncode == 0
    assert not [folder for folder in folders if os.path.exists(folder)]
