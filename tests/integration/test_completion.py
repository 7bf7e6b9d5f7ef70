"""The completion script, really sourced by bash and driven as readline drives it."""

from __future__ import annotations

import os
import pty
import re
import resource
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import launch, refused

from recaption.__main__ import COMMANDS
from recaption.completion.command import OPTIONS

SCRIPT = Path(sys.executable).parent / "recaption"
ASK = r"""
. "$1"
COMP_LINE=$2 COMP_POINT=${#2}
_recaption
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = subprocess.run(
        [SCRIPT, "completion", "bash"], capture_output=True, text=True, timeout=60, check=True
    )
    assert made.stderr == ""
    path = tmp_path_factory.mktemp("completion") / "recaption.bash"
    path.write_text(made.stdout)
    return path


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
    assert complete(script, "recaption completion ") == ["bash"]


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
        (b"recaption launch model=qwen2.5-vl-7\t", "recaption launch model=qwen2.5-vl-7b "),
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
def test_options_are_those_of_the_help(command: str, tmp_path: Path) -> None:
    shown = launch("--help", cwd=tmp_path, module=command).stdout
    for option in OPTIONS[command].split():
        assert option == "--help" or option in shown, option
    usage = shown.partition("\n\n")[0]
    for option in re.findall(r"(?<![-\w])--[a-z-]+", usage):
        assert option in OPTIONS[command], option


def test_an_unknown_shell(tmp_path: Path) -> None:
    refused(launch("tcsh", cwd=tmp_path, module="completion"), "shell=tcsh", "bash")
