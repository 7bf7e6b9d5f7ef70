"""A shard that cannot be made: salvaged, or given up and passed over by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from helpers import Completed, launch, launched, markers, refused, rows
from tars import plain_members, tar_bytes, write_tar

from recaption.__main__ import run

Command = Callable[..., Completed]
WORDS = ("data.shards=in/*.tar", "engine=fake", "data.tries=1", "output.dir=run")


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """`python -m recaption.NAME WORDS` within this process."""

    def command(name: str, *words: str, code: int = 0) -> Completed:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as end:
            run(import_module(f"recaption.{name}").main)
        out, err = capfd.readouterr()
        assert end.value.code == code, f"{out}\n{err}"
        return Completed(list(words), code, out, err)

    return command


def make(folder: Path, *words: str) -> Completed:
    """A run of two whole shards and a truncated one."""
    for number, name in enumerate(("a", "b")):
        write_tar(folder / f"in/{name}.tar", plain_members(3, number))
    (folder / "in/cut.tar").write_bytes(tar_bytes(plain_members(6, 2))[:9_000])
    return launch(*WORDS, *words, cwd=folder)


def status(command: Command, code: int = 0) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(command("status", "run", "--json", code=code).stdout)
    return seen


def test_given_up_and_taken_back(command: Command, tmp_path: Path) -> None:
    made = make(tmp_path, "output.mode=captions")
    assert made.returncode == 1
    assert "data.damaged=salvage" in made.stderr
    assert "--give-up" in made.stderr
    folder = tmp_path / "run"

    said = command("retry", "run", "--give-up", "cut.tar")
    assert "given up: cut.tar: cut inside member" in said.stdout
    marker = markers(folder)["cut.tar"]
    assert "cut inside member" in marker["given_up"]
    assert not {"tar", "sidecar", "counts", "samples"} & set(marker)
    assert sorted(p.name for p in folder.glob("*.tar")) == ["a.tar", "b.tar"]
    seen = status(command)
    assert seen["state"] == "complete"
    assert seen["shards"] == {"total": 3, "done": 2, "failed": 0, "given_up": 1, "left": 0}
    assert "cut.tar: cut inside" in command("status", "run").stdout
    assert json.loads((folder / "sizes.json").read_bytes()) == {"a.tar": 3, "b.tar": 3}
    assert "given up: cut.tar" in (folder / "README.md").read_text()
    verified = command("verify", "run", "--input", "--complete").stdout
    assert "given up: cut.tar: cut inside" in verified
    assert "no defect in 2 of 2 shards; " in verified
    for name, *words in (
        ("launch", *WORDS, "output.mode=captions"),
        ("retry", "run"),
        ("report", "run", "-o", "report.html"),
        ("filter", "run", "--where", "tokens > 0", "-o", "filtered"),
        ("join", "run", "-o", "joined"),
        ("retry", "run", "--reason", "nothing", "--status", "captioned", "-o", "again"),
    ):
        assert "given up: cut.tar" in command(name, *words).stdout or words[-1] == "again"
    for new in ("filtered", "joined"):
        assert "cut inside member" in markers(tmp_path / new)["cut.tar"]["given_up"]
        command("verify", new, "--complete")

    refused(command("retry", "run", "--give-up", "cu.tar", code=2), "cu.tar", "mean cut.tar")
    refused(command("retry", "run", "--give-up", "a.tar", code=2), "--give-up a.tar", "published")
    refused(command("retry", "run", "--take-back", "b.tar", code=2), "--take-back b.tar")
    refused(command("retry", "run", "--give-up", "cut.tar", "wait=true", code=2), "--give-up")

    assert "taken back: cut.tar" in command("retry", "run", "--take-back", "cut").stdout
    assert status(command, code=1)["shards"]["failed"] == 1
    assert not (folder / "sizes.json").exists()
    assert not (folder / "README.md").exists()
    assert "run unfinished" in command("verify", "run").stdout
    command("verify", "run", "--complete", code=1)
    command("retry", "run", "data.damaged=salvage")
    made_now = markers(folder)
    assert [made_now[n]["data.damaged"] for n in sorted(made_now)] == ["fail", "fail", "salvage"]
    assert status(command)["shards"]["done"] == 3
    command("verify", "run", "--input", "--complete")
    for name, *words in (
        ("filter", "run", "--where", "tokens > 0", "-o", "filtered"),
        ("join", "run", "-o", "joined"),
    ):
        command(name, *words)
        assert len(rows(tmp_path / words[-1], "cut.tar")) == len(rows(folder, "cut.tar"))
        command("verify", words[-1], "--complete")


def test_who_finishes_a_shard_takes_what_its_rows_were_made_with(tmp_path: Path) -> None:
    """Rows of a salvaged shard are there, and its tar and marker are not."""
    make(tmp_path, "data.damaged=salvage")
    folder = tmp_path / "run"
    before = markers(folder)["cut.tar"]
    (folder / ".recaption/shards/cut.json").unlink()
    for path in (folder / "cut.tar", folder / "sizes.json", folder / "README.md"):
        path.unlink()
    launched(*WORDS, "data.damaged=fail", cwd=tmp_path)
    after = markers(folder)["cut.tar"]
    assert after["data.damaged"] == "salvage"
    assert after["tar"] == before["tar"]
