"""What signs a URL or stands in a command is stored and printed nowhere, and nothing stored is run."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from drawing import write_shards
from helpers import (
    Process,
    captions,
    launch,
    launched,
    markers,
    refused,
    started,
    wait_until,
)

from recaption.errors import UserError
from recaption.join import main as join
from recaption.report import main as report
from recaption.run.paths import RunPaths
from recaption.run.record import open_run
from recaption.shard import input_locations
from recaption.upload.contents import contents
from recaption.verify import main as verify

TOKEN = "sesame7x"


@dataclass(frozen=True)
class Secretive:
    """A shard behind a signed URL, and one that a command makes."""

    folder: Path
    site: str

    @property
    def pattern(self) -> str:
        return f"[{self.site}/00000.tar?sig={TOKEN},pipe:: {TOKEN}; touch ran; cat {self.folder}/00001.tar]"

    def words(self, **keys: str) -> list[str]:
        keys = {"engine": "fake", "output.dir": "run", "data.workers": "1", **keys}
        given = [f"{key}={value}" for key, value in keys.items()]
        return [f"data.shards={self.pattern}", "data.allow_pipe=true", *given]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def secretive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secretive]:
    folder = tmp_path_factory.mktemp("secretive")
    write_shards(folder, 2, 6, side=96, plain=True)
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Secretive(folder, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.fixture(scope="module")
def made(secretive: Secretive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of captions alone; tests only read it."""
    cwd = tmp_path_factory.mktemp("made")
    done = launched(*secretive.words(**{"output.mode": "captions"}), cwd=cwd)
    assert TOKEN not in done.stdout + done.stderr
    (cwd / "ran").unlink()
    return cwd


def holding(folder: Path, text: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]


def test_nothing_that_a_run_leaves_holds_them(made: Path) -> None:
    assert holding(made / "run", TOKEN) == []
    urls = {name: marker["input"]["url"] for name, marker in markers(made / "run").items()}
    assert urls["00000.tar"].endswith("/00000.tar?")
    assert urls["00001.tar"].startswith("pipe:sha256:")
    assert len(captions(made / "run")) == 12


def test_verify_asks_for_what_is_not_stored(
    made: Path, secretive: Secretive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)

    def refused(*words: str, named: str) -> None:
        with pytest.raises(UserError, match=named):
            verify(["run", "--input", *words])

    refused(named="--allow-pipe")
    refused("--allow-pipe", named="--inputs")
    refused("--inputs", secretive.pattern, named="--allow-pipe")
    assert not (made / "ran").exists()
    other = secretive.pattern.replace("touch ran", "touch made")
    refused("--inputs", other, "--allow-pipe", named=r"00001\.tar is another")
    assert not (made / "made").exists()
    assert verify(["run", "--input", "--inputs", secretive.pattern, "--allow-pipe"]) == 0
    assert (made / "ran").exists()


def test_join_and_report_take_them_too(
    made: Path, secretive: Secretive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, full = str(made / "run"), str(tmp_path / "full")
    with pytest.raises(UserError, match="--allow-pipe"):
        join([run, "-o", full])
    words = ["--inputs", secretive.pattern, "--allow-pipe"]
    assert join([run, "-o", full, *words]) == 0
    assert len(captions(tmp_path / "full")) == 12
    assert holding(tmp_path / "full", TOKEN) == []
    page = tmp_path / "page.html"
    assert report([run, "-o", str(page), "--fetch"]) == 0
    assert "--inputs" in page.read_text()
    assert "--allow-pipe" in page.read_text()
    assert report([run, "-o", str(page), "--fetch", *words]) == 0
    assert "--inputs" not in page.read_text()
    assert holding(tmp_path, TOKEN) == []


def test_another_signature_goes_on_and_a_retry_asks(secretive: Secretive, tmp_path: Path) -> None:
    words = secretive.words(**{"data.range": "0"})
    launched(*words, cwd=tmp_path)
    renewed = [word.replace(f"sig={TOKEN}", f"sig=new&{TOKEN}") for word in words]
    launched(*[w.replace("range=0", "range=0-1") for w in renewed], "dry_run=true", cwd=tmp_path)
    retry = ["run", "data.range=1"]
    refused(launch(*retry, cwd=tmp_path, module="retry"), "--allow-pipe")
    refused(launch(*retry, "--allow-pipe", cwd=tmp_path, module="retry"), "--inputs")
    retry += ["--allow-pipe", "--inputs", secretive.pattern]
    assert launch(*retry, cwd=tmp_path, module="retry").returncode == 0
    assert sorted(markers(tmp_path / "run")) == ["00000.tar", "00001.tar"]
    assert holding(tmp_path / "run", TOKEN) == []


def test_a_list_file_is_named(secretive: Secretive, tmp_path: Path) -> None:
    """Its path is no secret; what it says is."""
    (tmp_path / "inputs.txt").write_text("\n".join(secretive.pattern[1:-1].split(",")))
    words = [w for w in secretive.words() if not w.startswith("data.shards=")]
    launched("data.shards=inputs.txt", *words, cwd=tmp_path)
    assert holding(tmp_path / "run", TOKEN) == []
    submission = json.loads((tmp_path / "run/.recaption/submissions/0.json").read_bytes())
    assert submission["inputs"] == str(tmp_path / "inputs.txt")


def test_a_reason_holds_no_signature(secretive: Secretive, tmp_path: Path) -> None:
    url = f"{secretive.site}/nosuch.tar?sig={TOKEN}"
    done = launch(
        f"data.shards={url}", "engine=fake", "output.dir=run", "data.tries=1", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "nosuch.tar" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert holding(tmp_path / "run", TOKEN) == []


def test_a_pattern_that_is_too_long_for_an_environment(
    made: Path, secretive: Secretive, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = open_run(made / "run")
    with pytest.raises(UserError, match="list file"):
        input_locations.carried(run, secretive.pattern, exports=False, moved=False)
    monkeypatch.setattr(input_locations, "LARGEST", 100)
    with pytest.raises(UserError, match=r"data\.shards=FILE\.txt"):
        input_locations.carried(run, secretive.pattern, exports=True, moved=False)


def test_uploads_of_earlier_runs_are_cleaned(made: Path, tmp_path: Path) -> None:
    """0.1.0 stored URLs and commands as they were given."""
    run = tmp_path / "run"
    launched_before(made / "run", run)
    assert len(holding(run, TOKEN)) == 2
    paths, record = open_run(run)
    whole = contents(paths, record, tmp_path / "scratch", shards_only=False)
    files = [*whole.first, *whole.last, *(f for n in whole.names for f in whole.shard(n).files)]
    assert {f.name for f in files} >= {".recaption/run.json", ".recaption/shards/00001.json"}
    for file in files:
        assert TOKEN.encode() not in file.path.read_bytes(), file.name
        file.check()


def launched_before(run: Path, copy: Path) -> None:
    """A copy of a run as 0.1.0 would have stored the command of its second shard."""
    command = f"pipe:: {TOKEN}; cat x"
    for path in run.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    paths = RunPaths(copy)
    record = json.loads(paths.run_json.read_bytes())
    record["shards"][1][0] = command
    paths.run_json.write_text(json.dumps(record))
    marker = json.loads(paths.marker("00001.tar").read_bytes())
    marker["input"]["url"] = command
    paths.marker("00001.tar").write_text(json.dumps(marker))


@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_a_command_ends_with_its_task(end: str, tmp_path: Path) -> None:
    """All of it: the shell, and what that has started."""
    words = ["data.shards=pipe:sleep 300 | sleep 300", "data.allow_pipe=true"]
    with started(*words, "engine=fake", "output.dir=run", cwd=tmp_path) as process:
        wait_until(lambda: len(sleepers(process)) == 2, 60, "the command")
        if end == "interrupt":
            process.interrupt()
        else:
            (log,) = (tmp_path / "run/.recaption/tasks").glob("*.jsonl")
            os.kill(json.loads(log.read_text().splitlines()[0])["pid"], 9)
        wait_until(lambda: not sleepers(process), 30, "the command to end")
        process.finish(60)


def sleepers(process: Process) -> list[int]:
    return [pid for pid, command in process.left() if command.startswith("sleep")]
