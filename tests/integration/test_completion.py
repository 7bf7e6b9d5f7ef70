"""The completion scripts, sourced by the shells that they are for and driven as a user does."""

from __future__ import annotations

import os
import pty
import resource
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import launch, refused

from recaption.__main__ import COMMANDS, parser_of
from recaption.completion import SHELLS

SCRIPT = Path(sys.executable).parent / "recaption"
ASK = r"""
. "$1"
COMP_LINE=$2 COMP_POINT=${#2}
_recaption
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script of every shell, by its name."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        made = subprocess.run(
            [SCRIPT, "completion", shell], capture_output=True, text=True, timeout=60, check=True
        )
        assert made.stderr == ""
        (folder / shell).write_text(made.stdout)
    return folder


@pytest.fixture
def script(scripts: Path) -> Path:
    """The one for bash."""
    return scripts / "bash"


def complete(script: Path, line: str) -> list[str]:
    """What bash is offered for a line with the cursor at its end."""
    done = subprocess.run(
        ["bash", "--norc", "-u", "-c", ASK, "bash", str(script), line],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands(script: Path) -> None:
    assert set(complete(script, "recaption ")) == {*COMMANDS, "--help", "--version"}
    assert complete(script, "recaption ver") == ["verify"]
    assert complete(script, "recaption completion ") == ["bash", "fish"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("recaption launch slurm.part", ["slurm.partition="]),
        (
            "recaption launch data.shards=/d/x.tar watermark.cl",
            ["watermark.class=", "watermark.class_axis="],
        ),
        ("recaption doctor output.m", ["output.mode="]),
        ("recaption launch prompt=", ["detailed", "refine", "short", "tags"]),
        ("recaption launch -m prompt=short,re", ["short,refine"]),
        ("recaption launch model=ti", ["tiny"]),
        ("recaption launch slurm=", ["cluster", "local"]),
        ("recaption launch data.damaged=s", ["salvage"]),
        ("recaption launch wait=", ["true", "false"]),
        ("recaption launch watermark=o", ["off", "onnx"]),
        ("recaption launch output.dir=", []),
        ("recaption launch model=none", []),
        ("recaption status --w", ["--watch"]),
        ("recaption status ", []),
        ("recaption demo ", []),
        ("recaption demo slurm.acc", ["slurm.account="]),
        ("recaption retry run slurm.acc", ["slurm.account="]),
    ],
)
def test_words(script: Path, line: str, offered: list[str]) -> None:
    assert complete(script, line) == offered


@pytest.mark.parametrize("option", ["--config-dir={}", "--config-dir {}", "-cd {}"])
def test_presets_of_the_users_own(script: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/mysite.yaml").write_text("")
    given = option.format(tmp_path)
    assert complete(script, f"recaption launch {given} slurm=my") == ["mysite"]
    assert complete(script, f"recaption launch {given} model=my") == []


def test_it_answers_in_half_a_second(script: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert complete(script, "recaption launch ")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        (b"recaption stat\t", "recaption status "),
        (b"recaption launch slurm.parti\t", "recaption launch slurm.partition="),
        (b"recaption launch model=qwen2.5-vl-3\t", "recaption launch model=qwen2.5-vl-3b "),
    ],
)
def test_a_tab_in_a_real_shell(script: Path, typed: bytes, becomes: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**os.environ, "PS1": "ready> ", "TERM": "dumb"}
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
    try:
        _until(terminal, "ready> ")
        os.write(terminal, f"bind 'set bell-style none'; . {script}; echo sour''ced\n".encode())
        _until(terminal, "sourced\r\nready> ")
        os.write(terminal, typed)
        _until(terminal, becomes)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _until(terminal: int, text: str) -> None:
    seen, deadline = "", time.monotonic() + 20
    while text not in seen:
        assert time.monotonic() < deadline, f"{text!r} is not in {seen!r}"
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 4096).decode()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_options_are_those_of_the_parser(script: Path, command: str) -> None:
    assert set(complete(script, f"recaption {command} -")) == parser_of(command).flags


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ver", {"verify"}),
        ("launch slurm.part", {"slurm.partition="}),
        ("launch -m prompt=short,re", {"prompt=short,refine"}),
        ("launch model=ti", {"model=tiny"}),
        ("launch wait=", {"wait=true", "wait=false"}),
        ("launch --config-dir=HERE slurm=my", {"slurm=mysite"}),
        ("launch -cd HERE slurm=my", {"slurm=mysite"}),
        ("launch -cd HERE model=ti", {"model=tiny"}),
        ("status --w", {"--watch"}),
        ("status ", {"file"}),
        ("retry ", {"file"}),
        ("demo ", {"file"}),
        ("retry run slurm.acc", {"slurm.account="}),
        ("completion ", set(SHELLS)),
    ],
)
def test_fish(scripts: Path, tmp_path: Path, line: str, offered: set[str]) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    place(tmp_path)
    line = f"recaption {line.replace('HERE', f'{tmp_path}/conf')}"
    done = subprocess.run(
        [
            "fish",
            "--no-config",
            "-c",
            "source $argv[1]; complete -C $argv[2]",
            scripts / "fish",
            line,
        ],
        cwd=tmp_path / "in",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert {said.partition("\t")[0] for said in done.stdout.splitlines()} == offered


def place(folder: Path) -> None:
    """A folder with a file, and one with a preset."""
    (folder / "in").mkdir()
    (folder / "in/file").write_text("")
    (folder / "conf/slurm").mkdir(parents=True)
    (folder / "conf/slurm/mysite.yaml").write_text("")


def test_an_unknown_shell(tmp_path: Path) -> None:
    refused(launch("tcsh", cwd=tmp_path, module="completion"), "SHELL", "tcsh", "bash")
