"""`recaption.status` on real runs, and on made ones that are large or in trouble."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawing import EXTENSIONS, Sample, write_shard, write_shards
from helpers import Completed, children_cpu, launch, launched, refused, started, wait_until

from recaption.run.paths import RunPaths
from recaption.run.record import (
    InputShard,
    Run,
    Submission,
    open_run,
    write_run,
    write_submission,
)
from recaption.status import command
from recaption.status import main as show
from recaption.status.overview import overview

NODE = "node07"


def status(*words: str, cwd: Path) -> Completed:
    return launch(*words, cwd=cwd, module="status")


def status_json(run: Path, code: int = 0) -> Any:
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    result = status(str(run), "--json", cwd=elsewhere)
    assert result.returncode == code, result
    assert result.stderr == ""
    return json.loads(result.stdout)


def make_run(root: Path, shards: int, *, kind: str = "cluster", tasks: int = 2) -> RunPaths:
    """A run directory as a launch leaves it, with jobs 77_0, 77_1 … and nothing done."""
    paths = RunPaths(root)
    root.mkdir()
    for folder in paths.folders():
        folder.mkdir()
    inputs = [InputShard(f"/data/{i:06d}.tar", f"{i:06d}.tar", 1000) for i in range(shards)]
    identity = {"output.mode": "full"}
    write_run(paths, Run("f" * 64, identity, [], {"name": "m"}, inputs, {}, time.time()), "t")
    positions = list(range(shards))
    config = {"slurm": {"kind": kind}}
    slices = [positions[i::tasks] for i in range(tasks)]
    jobs = [f"77_{i}" for i in range(tasks)] if kind == "cluster" else []
    write_submission(paths, Submission(0, config, positions, slices, time.time(), jobs), "t")
    return paths


def log_events(
    paths: RunPaths, task: int, events: list[dict[str, Any]], attempt: str = "a"
) -> None:
    now = time.time()
    with paths.task_log(0, task, attempt).open("a") as log:
        for event in events:
            log.write(json.dumps({"time": now, **event}) + "\n")


def start(seconds_ago: float = 0.0) -> dict[str, Any]:
    then = time.time() - seconds_ago
    return {"event": "start", "time": then, "node": NODE, "pid": 1, "engines": 1, "workers": 1}


def beat(settled: int, seconds: float, seconds_ago: float = 0.0) -> dict[str, Any]:
    then = time.time() - seconds_ago
    counts = {"captioned": settled, "settled": settled, "seconds": seconds, "restarts": 0}
    return {"event": "beat", "time": then, **counts}


def published(paths: RunPaths, name: str, captioned: int, marker: str = "{}") -> dict[str, Any]:
    paths.marker(name).write_text(marker)
    counts = {"captioned": captioned, "filtered": 0, "rejected": 0, "failed": 0}
    return {"event": "published", "shard": name, "counts": counts, "won": True}


def fake_slurm(folder: Path, squeue: str, code: int = 0) -> dict[str, str]:
    """An environment whose squeue prints this and whose sacct knows one job that ran out of memory."""
    folder.mkdir()
    answers = {
        "squeue": f"cat <<'END'\n{squeue}\nEND\nexit {code}",
        "sacct": "echo '77_1|OUT_OF_MEMORY'",
    }
    for name, body in answers.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_finished_run_adds_up(tmp_path: Path) -> None:
    made = write_shards(tmp_path / "in", 2, 6, side=128, plain=True)
    bad = made["00001.tar"]
    for i in (1, 4):
        broken = {e: b"no image" if e in EXTENSIONS else c for e, c in bad[i].members.items()}
        bad[i] = Sample(bad[i].key, broken)
    write_shard(tmp_path / "in/00001.tar", bad)
    run = tmp_path / "run"
    words = (f"data.shards={tmp_path}/in/{{00000..00001}}.tar", "engine=fake", f"output.dir={run}")
    launched(*words, cwd=tmp_path)
    seen = status_json(run)
    assert seen["state"] == "complete"
    assert seen["shards"] == {"total": 2, "done": 2, "failed": 0, "given_up": 0, "left": 0}
    expected = {"captioned": 10, "rejected": 2, "failed": 0, "filtered": 0}
    assert seen["samples"] == {"published": 12, "in_progress": 0, **expected}
    assert seen["images_per_second"]["overall"] > 0
    assert [(t["state"], t["settled"], t["published"]) for t in seen["tasks"]] == [("done", 12, 2)]
    assert Path(seen["tasks"][0]["log"]).exists()
    (reason,) = seen["failures"]
    assert (reason["what"], reason["count"]) == ("sample", 2)
    assert reason["example"] == f"00001.tar/{bad[1].key}"
    assert "not a JPEG" in reason["reason"]
    text = status(str(run), cwd=tmp_path).stdout
    for part in ("complete", "2 of 2 published", "10 captioned, 2 rejected", "not a JPEG"):
        assert part in text
    assert "\033" not in text


def test_failed_shards_and_several_runs(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 2, 3, side=128, plain=True)
    damaged = tmp_path / "in/00001.tar"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    for name, last in (("good", 0), ("bad", 1)):
        pattern = f"data.shards={tmp_path}/in/{{00000..{last:05d}}}.tar"
        launch(pattern, "engine=fake", f"output.dir={tmp_path}/{name}", cwd=tmp_path)
    seen = status_json(tmp_path / "bad", code=1)
    assert seen["state"] == "needs retry"
    assert seen["shards"] == {"total": 2, "done": 1, "failed": 1, "given_up": 0, "left": 0}
    (reason,) = seen["failures"]
    assert (reason["what"], reason["example"], reason["count"]) == ("shard", "00001.tar", 1)
    assert Path(reason["log"]).exists()
    both = status("good", "bad", "--json", cwd=tmp_path)
    assert both.returncode == 1
    assert [r["state"] for r in json.loads(both.stdout)] == ["complete", "needs retry"]
    text = status("good", "bad", cwd=tmp_path).stdout
    assert f"python -m recaption.retry {tmp_path}/bad" in text
    assert f"python -m recaption.retry {tmp_path}/good" not in text


def test_a_watch_looks_again_until_nothing_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = make_run(tmp_path / "run", 1)
    states, slept = ["running", "waiting", "complete", "running"], []
    seen = [replace(overview(*open_run(paths.root)), state=state) for state in states]
    monkeypatch.setattr(command, "overview", lambda *_: seen.pop(0))
    monkeypatch.setattr(command.time, "sleep", slept.append)
    assert show([str(paths.root), "--watch"]) == 0
    assert len(seen) == 1
    assert slept == [60, 60]
    assert capsys.readouterr().out.count(f"{paths.root}") == 3
    assert show([str(paths.root)]) == 1
    assert slept == [60, 60], "without --watch it looks once"


def test_a_killed_run_is_lost_not_running(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 2, 20, side=128, plain=True)
    run = tmp_path / "run"
    words = ("engine=fake", "engine.rate=5", "task.flush_seconds=0.2", f"output.dir={run}")
    with started(f"data.shards={tmp_path}/in/*.tar", *words, cwd=tmp_path) as process:

        def working() -> Any:
            if not (run / ".recaption/submissions/0.json").exists():
                return None
            seen = status_json(run, code=1)
            return seen if seen["tasks"][0]["settled"] else None

        seen = wait_until(working, 60, "no sample was ever settled")
        assert seen["state"] == "running"
        assert seen["tasks"][0]["state"] == "running"
        assert 0 < seen["images_per_second"]["now"] < 10
        assert seen["samples"]["in_progress"] > 0
        for pid, _ in process.left():
            with contextlib.suppress(ProcessLookupError):  # it died with its parent
                os.kill(pid, signal.SIGKILL)
        process.finish(30)
    seen = status_json(run, code=1)
    assert seen["state"] == "needs retry"
    assert seen["tasks"][0]["state"] == "lost"
    assert seen["images_per_second"]["now"] == 0
    assert seen["seconds_left"] is None


def test_rates_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_run(tmp_path / "run", 10)
    done = [published(paths, f"{i:06d}.tar", 100) for i in range(4)]
    beats = [beat(300, 30.0, 40), beat(500, 70.0)]
    log_events(paths, 0, [start(80), *done, *beats])
    env = fake_slurm(tmp_path / "bin", f"77_0|RUNNING|{NODE}|None\n77_1|PENDING||Priority")
    monkeypatch.setenv("PATH", env["PATH"])
    seen = status_json(paths.root, code=1)
    assert seen["state"] == "running"
    assert seen["samples"]["published"] == 400
    assert seen["samples"]["in_progress"] == 100
    assert seen["images_per_second"]["now"] == pytest.approx(200 / 40)
    assert seen["images_per_second"]["overall"] == pytest.approx(500 / 80, rel=0.02)
    assert seen["seconds_left"] == pytest.approx((600 - 100) / 5)
    states = [(t["job"], t["state"], t["reason"]) for t in seen["tasks"]]
    assert states == [("77_0", "running", ""), ("77_1", "pending", "Priority")]


def test_trouble_with_slurm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_run(tmp_path / "run", 10, tasks=4)
    log_events(paths, 0, [start(4000), beat(10, 60.0, 3900)])
    log_events(paths, 1, [start(4000), beat(10, 60.0, 3900)])
    queue = f"77_0|RUNNING|{NODE}|None\n77_2|PENDING||JobHeldAdmin"
    env = fake_slurm(tmp_path / "bin", queue)
    monkeypatch.setenv("PATH", env["PATH"])
    seen = status_json(paths.root, code=1)
    states = {t["job"]: (t["state"], t["reason"]) for t in seen["tasks"]}
    assert states["77_0"] == ("stuck", "no sign of life for 65 min")
    assert states["77_1"] == ("lost", "OUT_OF_MEMORY")
    assert states["77_2"] == ("held", "JobHeldAdmin")
    assert states["77_3"] == ("lost", "never started")
    assert "scontrol release 77_2" in status(str(paths.root), cwd=tmp_path).stdout
    (tmp_path / "bin/squeue").write_text(
        "#!/bin/sh\necho 'Unable to contact controller' >&2; exit 1\n"
    )
    seen = status_json(paths.root, code=1)
    assert [t["state"] for t in seen["tasks"]] == ["stuck", "stuck", "unknown", "unknown"]
    (tmp_path / "bin/squeue").write_text("#!/bin/sh\necho 'Invalid job id specified' >&2; exit 1\n")
    assert status_json(paths.root, code=1)["state"] == "needs retry"


def test_a_task_that_never_started_says_its_logs_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_run(tmp_path / "run", 10)
    last = "slurmstepd: error: execve(): python: No such file or directory"
    for task in (0, 1):
        paths.output_log(f"77_{task}_0").write_text(f"module: loaded\n{last}\n\n")
    monkeypatch.setenv("PATH", fake_slurm(tmp_path / "bin", "")["PATH"])
    seen = {t["job"]: (t["state"], t["reason"]) for t in status_json(paths.root, code=1)["tasks"]}
    assert seen["77_0"] == ("lost", f"never started: {last}")
    assert seen["77_1"] == ("lost", f"OUT_OF_MEMORY, never started: {last}")


def test_a_task_that_stops_is_not_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its attempt has ended already, or was told to before its engines were ready."""
    paths = make_run(tmp_path / "run", 10)
    log_events(paths, 0, [start(20), {"event": "stop", "why": "drain", "reason": ""}])
    log_events(paths, 1, [start(20), {"event": "stopping", "how": "drain"}])
    queue = f"77_0|COMPLETING|{NODE}|None\n77_1|RUNNING|{NODE}|None"
    monkeypatch.setenv("PATH", fake_slurm(tmp_path / "bin", queue)["PATH"])
    tasks = status_json(paths.root, code=1)["tasks"]
    assert [t["state"] for t in tasks] == ["stopping", "stopping"]


@pytest.mark.parametrize("no_color", [False, True])
def test_red_only_on_a_terminal(tmp_path: Path, *, no_color: bool) -> None:
    paths = make_run(tmp_path / "run", 2)
    log_events(paths, 0, [start(), {"event": "failed", "shard": "000000.tar", "reason": "cut"}])
    env = {**os.environ, "TERM": "xterm", "PATH": "/nowhere"}
    env.pop("NO_COLOR", None)
    if no_color:
        env["NO_COLOR"] = "1"
    main, other = pty.openpty()
    command = [sys.executable, "-m", "recaption.status", str(paths.root)]
    code = subprocess.run(command, stdout=other, env=env, check=False).returncode
    os.close(other)
    text = os.read(main, 1 << 16).decode()
    os.close(main)
    assert code == 1
    assert "cut" in text
    assert ("\033[31m" in text) is not no_color


def test_wrong_use(tmp_path: Path) -> None:
    refused(status(cwd=tmp_path), "run directory")
    refused(status(str(tmp_path), cwd=tmp_path), str(tmp_path), "run.json")
    refused(status("x", "--jsn", cwd=tmp_path), "--jsn", "--json")
    assert "seconds_left" in status("--help", cwd=tmp_path).stdout


def test_what_a_full_disk_left_is_read(tmp_path: Path) -> None:
    paths = make_run(tmp_path / "run", 3, kind="local")
    log_events(paths, 0, [start(10), published(paths, "000000.tar", 5)])
    with paths.task_log(0, 0, "a").open("a") as log:
        log.write('{"event": "publi\n{"event": "be')
    paths.marker("000001.tar").write_text("{")
    counts = {"captioned": 7, "filtered": 0, "rejected": 0, "failed": 0}
    paths.marker("000002.tar").write_text(json.dumps({"counts": counts}))
    seen = status_json(paths.root)
    assert seen["shards"]["done"] == 3
    assert seen["samples"]["captioned"] == 12


def test_ten_thousand_shards(tmp_path: Path) -> None:
    """100,000 take about ten times as long, which has to stay below 3 s."""
    paths = make_run(tmp_path / "run", 10_000, kind="local", tasks=8)
    for task in range(8):
        mine = [f"{i:06d}.tar" for i in range(task, 10_000, 8)]
        done = [published(paths, name, 50, marker="unread") for name in mine[:-1]]
        log_events(paths, task, [start(100), *done, beat(1, 9.0)])
    before = children_cpu()
    seen = status_json(paths.root, code=1)
    assert children_cpu() - before < 3
    assert seen["shards"]["done"] == 9992
    assert seen["samples"]["captioned"] == 9992 * 50
