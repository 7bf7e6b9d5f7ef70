"""Every command's arguments: what --help says and loads, and one line for each kind of mistake."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from recaption.__main__ import COMMANDS, parser_of
from recaption.cli.arguments import split_words
from recaption.errors import UserError
from recaption.retry import main as retry
from recaption.retry.command import _arrange

HEAVY = {"vllm", "torch", "transformers", "pyarrow", "datasets", "numpy", "submitit", "PIL"}
KEYED = {"launch", "retry", "doctor", "bench", "demo"}


def said(command: str, *words: str) -> str:
    """The one line that a mistake is told in."""
    with pytest.raises(UserError) as refused:
        parser_of(command).parse(words)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of(command)
    with pytest.raises(SystemExit) as end:
        parser.parse(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: python -m recaption.{command} " in shown
    assert re.search(
        rf"recaption[. ]{command} \S", f"{parser.description}{shown.partition('options:')[2]}"
    )
    for flag in parser.flags:
        assert flag in shown
    for action in parser._actions:
        assert action.help, action.dest


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from recaption.__main__ import COMMANDS, parser_of\n"
        "shown = [parser_of(name).format_help() for name in COMMANDS]\n"
        "assert len(shown) == len(COMMANDS)\n"
        f"print(*({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_which_commands_take_keys() -> None:
    assert {name for name in COMMANDS if "KEY=VALUE" in parser_of(name).takes} == KEYED


def test_options_and_words_in_any_order() -> None:
    options = parser_of("retry").parse(
        ["slurm.time=30", "--status=failed", "run", "--status=rejected", "-o", "new", "~data.name"]
    )
    assert (options.status, options.output) == ([["failed"], ["rejected"]], "new")
    given = split_words(options.run, *options.words)
    assert given == (["run"], ["slurm.time=30", "~data.name"])
    assert split_words("/d/a=b", None, "x=/y") == (["/d/a=b"], ["x=/y"])
    options = parser_of("launch").parse(["a=1", "-m", "b=2", "-cd", "DIR", "--cfg=job", "c=-1"])
    assert options.words == ["a=1", "b=2", "c=-1"]
    assert (options.multirun, options.config_dir, options.cfg) == (True, "DIR", "job")
    assert (
        parser_of("filter").parse(["r", "--where", "-1 < tokens", "-onew"]).where == "-1 < tokens"
    )


@pytest.mark.parametrize(
    "words",
    [
        "here --status failed rejected --reason a b -o new",
        "--status failed rejected here -o new sampling.seed=1",
        "--status rejected --status failed here -o new",
        "--status failed rejected --reason a here -o new",
        "--give-up a --give-up b here",
        "here --reason a --reason sides=3 -o new",
        "data.range=0 here --reason x engine.rate=3 --output=new",
        "--give-up a b here",
        "--take-back a b -- here",
    ],
)
def test_the_run_of_a_retry(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before or after its options, and behind the first value of one that takes several."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="/here: not a run directory"):
        retry(words.split())


def test_the_first_value_behind_an_option_is_its_own() -> None:
    words = "--reason a data.range=0 --reason sides=3 --reason=b r -o new --status failed rejected"
    options = parser_of("retry").parse(words.split())
    _arrange(options)
    assert (options.reason, options.status) == (["a", "sides=3", "b"], ["failed", "rejected"])
    assert (options.run, options.words) == ("r", ["data.range=0"])


@pytest.mark.parametrize("given", [["--where", "-height<-5"], ["--where=-height<-5"]])
def test_an_expression_that_begins_with_a_minus(given: list[str]) -> None:
    options = parser_of("filter").parse(["run", *given, "-o", "new"])
    assert (options.run, options.where, options.output) == ("run", "-height<-5", "new")


@pytest.mark.parametrize("words", [["--", "-RUN"], ["--json", "--", "-RUN"]])
def test_a_run_that_begins_with_a_minus(words: list[str]) -> None:
    assert parser_of("status").parse(words).runs == ["-RUN"]
    assert parser_of("stop").parse(words[-2:]).run == "-RUN"


def test_seconds_may_be_fractions() -> None:
    assert parser_of("doctor").parse(["--wait", "0.5", "slurm=local"]).wait == 0.5


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["filter", "run", "--were", "x"], ["option=--were", "did you mean --where?"]),
        (["filter", "run", "--whe", "x"], ["option=--whe", "--where"]),
        (["filter", "run", "--where"], ["--where: expected one argument"]),
        (["filter", "run", "--where", ""], ["--where: needs a value"]),
        (["filter", "run", "-o", "x"], ["--where: needed, the expression"]),
        (["filter", "--where", "x", "-o", "y"], ["RUN: needed, a run directory"]),
        (["filter", "run", "r2", "--where", "x", "-o", "y"], ["r2"]),
        (["filter", "run", "--where", "x", "-o", "y", "--output=z"], ["--output: given twice"]),
        (["filter", "run", "--where", "-o", "x"], ["--where: expected one argument"]),
        (["doctor", "--wait", "120", "--wait", "5"], ["--wait: given twice"]),
        (["launch", "-cn", "config", "-cn=site"], ["--config-name: given twice"]),
        (["doctor", "--wait", "nan"], ["--wait: nan", "0 to 86400"]),
        (["launch", "--cfg", "jbo"], ["--cfg", "'jbo'", "'job', 'all'"]),
        (["launch", "-x"], ["option=-x", "--multirun"]),
        (["launch", "--resolve=yes"], ["--resolve", "'yes'"]),
        (["status"], ["RUN: needed, a run directory"]),
        (["report", "run", "-o", "x.html", "--samples", "5001"], ["--samples: 5001", "1 to 5000"]),
        (["report", "run", "-o", "x.html", "--shards", "some"], ["--shards: some", "all"]),
        (["upload", "run"], ["DEST: needed, a destination"]),
        (["doctor", "--wait", "-1"], ["--wait"]),
        (["bench", "--size", "64"], ["--size: 64", "640x480"]),
        (["bench", "--parts", "motor"], ["--parts: motor", "pipeline"]),
        (["completion", "tcsh"], ["SHELL", "'tcsh'", "bash"]),
    ],
)
def test_mistakes(words: list[str], named: list[str]) -> None:
    message = said(*words)
    for name in named:
        assert name in message
