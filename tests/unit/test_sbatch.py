"""The batch scripts, word by word: a sbatch that only keeps what it is given."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from drawing import draw_samples, write_shard
from helpers import Completed, refused

from recaption.launch.environment import exports

GOLDEN = Path(__file__).parent / "golden" / "sbatch.sh"
EXAMPLES = Path(__file__).parents[2] / "slurm" / "examples"
SCRIPTS = {
    "sbatch": 'n=$(ls "$KEEP" | wc -l); [ "$n" -lt "${TAKE:-9}" ] || '
    '{ echo "sbatch: error: too many jobs" >&2; exit 1; }; '
    'cp "$1" "$KEEP/$n.sh"; export -p >"$KEEP.environment"; echo "Submitted batch job $((100 + n))"',
    "srun": "exit 1",
    "scontrol": 'echo "scontrol $*"; echo "MaxArraySize            = 4"',
    "squeue": "exit 1",
}


class Site:
    """A folder with two shards, and programs named as Slurm's on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, folder / "kept"
        self.kept.mkdir()
        (folder / "bin").mkdir()
        for name in SCRIPTS:
            self.program(name)
        for name in ("cp", "ls", "sh", "wc"):
            (folder / "bin" / name).symlink_to(shutil.which(name) or name)
        for number in range(6):
            write_shard(folder / f"{number}.tar", draw_samples(1, number, side=96))

    def program(self, name: str) -> None:
        script = self.folder / "bin" / name
        script.write_text(f"#!/bin/sh\n{SCRIPTS[name]}\n")
        script.chmod(0o755)

    def launch(self, *words: str, take: int = 9, **inherited: str) -> Completed:
        fixed = ["data.shards=[0-5].tar", "engine=fake", "output.dir=run"]
        given = {word.partition("=")[0] for word in words}
        words = (*(word for word in fixed if word.partition("=")[0] not in given), *words)
        env = {
            **os.environ,
            "PATH": f"{self.folder}/bin",
            "KEEP": str(self.kept),
            "TAKE": str(take),
            **inherited,
        }
        return subprocess.run(
            [sys.executable, "-m", "recaption.launch", *words],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def called_with(self) -> dict[str, str]:
        """The environment of the last sbatch."""
        lines = Path(f"{self.kept}.environment").read_text().splitlines()
        pairs = (line.removeprefix("export ").partition("=") for line in lines)
        return {name: value.strip("'\"") for name, _, value in pairs}

    def scripts(self) -> list[str]:
        return [path.read_text() for path in sorted(self.kept.iterdir())]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_every_key_in_the_batch_script(site: Site) -> None:
    words = "tasks=3 gpus=2 cpus=8 mem=64G time='1-00:00:00' partition=gpu account=lab qos=low"
    words += " constraint=a100 exclude='bad[1-2]' parallelism=2 signal_delay=120"
    words += " setup=['module load cuda','export A=1'] srun_args=['--container-image=/i.sqsh']"
    words += " additional.licenses=fs:1"
    given = [f"slurm.{w}" for w in re.split(r" (?=[a-z_.]+=)", words)]
    done = site.launch("slurm=cluster", "data.name=scenes", *given)
    assert done.returncode == 0, done.stderr
    (script,) = site.scripts()
    script = script.replace(sys.executable, "PYTHON").replace(str(site.folder), "HERE")
    assert script == GOLDEN.read_text()


def test_what_the_preset_of_clusters_asks_for(site: Site) -> None:
    done = site.launch("slurm=cluster", "dry_run=true")
    assert done.returncode == 0, done.stderr
    for option in ("gpus-per-node=1", "cpus-per-task=16", "mem=128G", "time=1440"):
        assert f"#SBATCH --{option}\n" in done.stdout


def test_a_task_that_is_killed_comes_back_so_many_times(site: Site) -> None:
    """Killed before it has a log; with a log of its own it would count itself."""
    done = site.launch("slurm=cluster", "slurm.tasks=2", "task.attempts=3")
    assert done.returncode == 0, done.stderr
    (script,) = site.scripts()
    ending = f"(exit $CODE)\n{script[script.index('code=$?') :]}"
    said = []
    for code in (137, 253, 0, 1, 75, 137):
        done = subprocess.run(
            ["/bin/bash", "-c", ending.replace("sleep 60", ":")],
            env={"CODE": str(code), "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
            | {"PATH": f"{site.folder}/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert not done.stderr
        said.append(done.stdout)
    asked, kept, ended = "scontrol requeue 7_1", "", said.pop()
    assert [asked in text or text for text in said] == [True, True, kept, kept, True]
    assert asked not in ended
    assert "slurm.mem" in ended


def test_a_cluster_without_arrays(site: Site) -> None:
    (site.folder / "bin/scontrol").write_text("#!/bin/sh\necho 'MaxArraySize            = 0'\n")
    done = site.launch("slurm=cluster", "slurm.tasks=3", "slurm.parallelism=2")
    assert done.returncode == 0, done.stderr
    assert "job ids: 100 101 102" in done.stdout
    scripts = site.scripts()
    assert not any("--array" in script for script in scripts)
    waits = [re.findall(r"--dependency=(\S+)", script) for script in scripts]
    assert waits == [[], [], ["afterany:100"]]


def test_parallelism_is_shared_out_among_arrays(site: Site) -> None:
    done = site.launch("slurm=cluster", "slurm.tasks=6", "slurm.parallelism=3")
    assert done.returncode == 0, done.stderr
    arrays = [re.findall(r"--(array|dependency)=(\S+)", text) for text in site.scripts()]
    assert arrays == [[("array", "0-3%2")], [("array", "0-1%1")]]


def test_fewer_at_a_time_than_arrays(site: Site) -> None:
    done = site.launch("slurm=cluster", "slurm.tasks=6", "slurm.parallelism=1")
    assert done.returncode == 0, done.stderr
    arrays = [re.findall(r"--(array|dependency)=(\S+)", text) for text in site.scripts()]
    assert arrays == [
        [("array", "0-3%1")],
        [("array", "0-1%1"), ("dependency", "afterany:100")],
    ]


def test_without_parallelism_nothing_is_capped(site: Site) -> None:
    done = site.launch("slurm=cluster", "slurm.tasks=3")
    assert done.returncode == 0, done.stderr
    assert "--array=0-2%3" in site.scripts()[0].replace("'", "")


def test_an_array_that_is_refused_leaves_the_first(site: Site) -> None:
    done = site.launch("slurm=cluster", "slurm.tasks=6", take=1)
    assert done.returncode == 1
    assert "job ids: 100" in done.stdout
    assert "4 of 6 tasks" in done.stderr
    assert "too many jobs" in done.stderr


def test_the_first_array_is_refused(site: Site) -> None:
    refused(site.launch("slurm=cluster", take=0), "sbatch", "too many jobs")


def test_a_signal_delay_as_long_as_the_time(site: Site) -> None:
    words = ["slurm=cluster", "slurm.time=1", "slurm.signal_delay=60"]
    refused(site.launch(*words), "slurm.signal_delay=60", "slurm.time=1")
    assert site.scripts() == []


def test_a_dependency_of_ones_own_is_added(site: Site) -> None:
    words = ["slurm.tasks=6", "slurm.parallelism=1", "slurm.additional.dependency=afterok:7"]
    done = site.launch("slurm=cluster", *words)
    assert done.returncode == 0, done.stderr
    found = [re.findall(r"--dependency=(\S+)", text) for text in site.scripts()]
    assert found == [["afterok:7"], ["afterany:100,afterok:7"]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["false"], "line 1 of slurm.setup failed with exit code 1"),
        (["export A=1", "if true; then", "  (exit 3)", "fi"], "line 3 of slurm.setup"),
        (["module() { return 7; }", "module load cuda", "true"], "line 2 of slurm.setup"),
        (["source ./missing.sh"], "line 1 of slurm.setup"),
        (["[ -d /nowhere ] && export A=1", "source ./siteful.sh", "false || true"], ""),
    ],
)
def test_a_line_of_setup_that_fails_ends_the_task(site: Site, lines: list[str], said: str) -> None:
    (site.folder / "siteful.sh").write_text("false\ngrep nothing /dev/null\ntrue\n")
    done = site.launch("slurm=cluster", "slurm.requeue=false", f"slurm.setup={lines}")
    assert done.returncode == 0, done.stderr
    (site.folder / "bin/srun").write_text("#!/bin/sh\necho the task runs\nexit 75\n")
    ran = subprocess.run(
        ["bash", site.kept / "0.sh"],
        cwd=site.folder,
        env={**os.environ, "PATH": f"{site.folder}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == (1 if said else 75), ran
    assert ("the task runs" in ran.stdout) != bool(said)
    assert said in ran.stdout


def test_status_after_a_submission_that_was_refused(site: Site) -> None:
    """Wholly or in part: what Slurm did not take is not lost."""
    refused(site.launch("slurm=cluster", "slurm.tasks=6", take=0), "too many jobs")
    assert tasks_of(site) == []
    assert site.launch("slurm=cluster", "slurm.tasks=6", take=1).returncode == 1
    submitted = site.folder / "run/.recaption/submissions/1.json"
    record = json.loads(submitted.read_text())
    submitted.write_text(json.dumps({**record, "created": record["created"] - 3600}))
    states = [(t["state"], t["reason"]) for t in tasks_of(site)]
    assert states[4:] == [("stopped", "not submitted")] * 2


def tasks_of(site: Site) -> list[dict[str, Any]]:
    shown = subprocess.run(
        [sys.executable, "-m", "recaption.status", "run", "--json"],
        cwd=site.folder,
        env={**os.environ, "PATH": f"{site.folder}/bin"},
        capture_output=True,
        check=False,
    )
    found: list[dict[str, Any]] = json.loads(shown.stdout)["tasks"]
    return found


@pytest.mark.parametrize(
    ("folder", "said"),
    [("run", "is relative"), ("/tmp/x/run", "/tmp is each node's own"), ("/srv/x/run", "")],
)
def test_warns_of_an_output_that_nodes_may_not_see(site: Site, folder: str, said: str) -> None:
    done = site.launch("slurm=cluster", f"output.dir={folder}", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert ("warning: output.dir=" in done.stderr) == bool(said)
    assert said in done.stderr


def test_says_that_the_temporary_folder_is_too_long_for_sockets(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = site.folder / ("x" * 71)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    refused(site.launch(), f"TMPDIR={long}", "70 at most")
    done = site.launch("slurm=cluster", "output.dir=other")
    assert done.returncode == 0, done.stderr
    assert f"warning: TMPDIR={long}" in done.stderr


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (["slurm.requeue=false"], "slurm.requeue=false"),
        (["slurm.additional.container-image=/i.sqsh"], "container"),
        (["without scontrol"], "no scontrol here"),
        ([], ""),
    ],
)
def test_warns_where_nothing_can_requeue(site: Site, words: list[str], warning: str) -> None:
    if words == ["without scontrol"]:
        (site.folder / "bin/scontrol").unlink()
        words = []
    done = site.launch("slurm=cluster", "slurm.tasks=2", *words)
    assert done.returncode == 0, done.stderr
    others = [line for line in done.stderr.splitlines() if "output.dir" not in line]
    assert any("warning: " in line for line in others) == bool(warning)
    assert warning in done.stderr
    (script,) = site.scripts()
    comes_back = warning != "slurm.requeue=false"
    assert ("#SBATCH --requeue\n" in script) == comes_back
    assert ("#SBATCH --no-requeue\n" in script) != comes_back
    assert ("scontrol requeue" in script) == comes_back


@pytest.mark.parametrize("name", sorted(p.stem for p in (EXAMPLES / "slurm").glob("*.yaml")))
def test_examples_of_sites(site: Site, name: str) -> None:
    done = site.launch(f"slurm={name}", "--config-dir", str(EXAMPLES), "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=gpu" in done.stdout
    assert "#SBATCH --requeue" in done.stdout
    assert "scontrol requeue" in done.stdout
    assert site.scripts() == []


JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_ARRAY_JOB_ID": "7",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_RESTART_COUNT": "5",
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_CPU_BIND": "none",
    "SLURM_HINT": "nomultithread",
    "SRUN_CPUS_PER_TASK": "4",
    "SUBMITIT_LOCAL_JOB_ID": "9",
}
SITE = {"SLURM_CONF": "/etc/s.conf", "SLURM_JWT": "t", "SLURM_CLUSTERS": "c"}
PROFILE = {"SBATCH_ACCOUNT": "mine", "SBATCH_RESERVATION": "r", "SBATCH_PARTITION": "long"}


def test_sbatch_is_called_without_what_describes_the_launcher_s_own_job(site: Site) -> None:
    unheeded = {"SBATCH_MEM_BIND": "local", "SBATCH_MEM_PER_CPU": "1G", "SBATCH_JOB_NAME": "x"}
    unheeded |= {"SBATCH_TIMELIMIT": "1", "SBATCH_NO_REQUEUE": "1", "SBATCH_WAIT": "1"}
    words = ["slurm=cluster", "slurm.partition=gpu", "slurm.mem=1G", "slurm.time=60"]
    done = site.launch(*words, **JOB, **SITE, **PROFILE, **unheeded)
    assert done.returncode == 0, done.stderr
    found = site.called_with()
    prefixes = ("SLURM_", "SRUN_", "SUBMITIT_", "SBATCH_")
    heeded = {"SBATCH_ACCOUNT": "mine", "SBATCH_RESERVATION": "r"}
    assert {k: v for k, v in found.items() if k.startswith(prefixes)} == SITE | heeded
    (said,) = [line for line in done.stdout.splitlines() if "SBATCH_" in line]
    assert said == "sbatch also heeds your SBATCH_ACCOUNT, SBATCH_RESERVATION"


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_batch_script_forgets_what_is_another_job_s(site: Site, tasks: int) -> None:
    """Where sbatch, or a site's wrapper of it, hands on what it should not."""
    done = site.launch("slurm=cluster", f"slurm.tasks={tasks}")
    assert done.returncode == 0, done.stderr
    (script,) = site.scripts()
    head = script[script.index("# setup") : script.index("# command")]
    ending = script[script.index("code=$?") :].replace("sleep 60", ":")
    done = subprocess.run(
        ["/bin/bash", "-c", f"{head}\nexport -p\n(exit 75)\n{ending}"],
        env=JOB | PROFILE | {"SLURM_JOB_ID": "12", "PATH": f"{site.folder}/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SBATCH_" not in done.stdout
    assert f"scontrol requeue {'7_3' if tasks > 1 else '12'}" in done.stdout


@pytest.mark.parametrize("take", [9, 0])
def test_no_script_is_left_with_what_setup_holds(site: Site, take: int) -> None:
    done = site.launch("slurm=cluster", "slurm.setup=['export TOKEN=hidden']", take=take)
    assert done.returncode == (0 if take else 2), done.stderr
    assert "TOKEN=hidden" in "".join(site.scripts()) or not take
    for path in (site.folder / "run").rglob("*"):
        assert not path.is_file() or b"hidden" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("option", "wish", "exported"),
    [
        ("", None, True),
        ("ALL,A=1", None, True),
        ("NONE", None, False),
        ("A", "ALL", False),
        ("", "NONE", False),
    ],
)
def test_whether_a_job_gets_the_environment(option: str, wish: str | None, exported: bool) -> None:
    script = f"#SBATCH --export={option}\n" if option else "#SBATCH --mem=1G\n"
    environment = {} if wish is None else {"SBATCH_EXPORT": wish}
    assert exports(script, environment) == exported
