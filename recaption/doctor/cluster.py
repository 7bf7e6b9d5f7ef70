"""Checks what a Slurm cluster allows, by asking its controller."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recaption.cli import slurm
from recaption.config.check import minutes
from recaption.config.schema import Config
from recaption.doctor.check import Check, fail, ok, tried, warn
from recaption.errors import UserError
from recaption.launch.sbatch import max_array_size, sbatch_text
from recaption.launch.submission import CLUSTER_TASKS
from recaption.run.paths import RunPaths

SECONDS = 60
PROGRAMS = ("sbatch", "srun", "squeue", "scontrol", "scancel")


def check_cluster(config: Config, shards: int) -> list[Check]:
    """Every check that needs no job; `shards` is their number, 0 if unknown."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        advice = "run it on a login node, or use slurm=local"
        return [fail("slurm commands", f"no {', '.join(missing)} here", advice)]
    found = [ok("slurm commands", _answer("sbatch", "--version").strip())]
    settings = slurm.settings()
    if not settings:
        advice = "see `scontrol show config`; the controller may be down"
        return [*found, fail("controller", "does not answer", advice)]
    found += tried("tasks", lambda: _sizes(config, settings, shards))
    found += tried("requeue", lambda: _requeue(config, settings))
    found += tried("partition", lambda: _partitions(config, settings))
    found += tried("accounting", lambda: _accounting(config, settings))
    return found + tried("sbatch", lambda: _test_only(config))


def _sizes(config: Config, settings: dict[str, str], shards: int) -> Iterator[Check]:
    tasks = min(config.slurm.tasks or CLUSTER_TASKS, shards or config.slurm.tasks or CLUSTER_TASKS)
    size, most = max_array_size(), settings.get("MaxJobCount", "")
    arrays = -(-tasks // size)
    text = f"MaxArraySize {size}: {tasks} tasks are {arrays} array{'s' * (arrays > 1)}"
    yield ok("tasks", text)
    if most.isdigit() and tasks >= int(most):
        advice = f"slurm.tasks below {most}"
        yield fail("MaxJobCount", f"{most}, and {tasks} tasks are jobs each", advice)
    elif most:
        yield ok("MaxJobCount", most)


def _requeue(config: Config, settings: dict[str, str]) -> Iterator[Check]:
    default = settings.get("JobRequeue", "?")
    if config.slurm.requeue:
        yield ok("requeue", f"asked for with --requeue (the cluster's JobRequeue is {default})")
    else:
        advice = "without it a task that is stopped waits for recaption.retry"
        yield warn("requeue", "slurm.requeue=false", advice)
    kind, mode = settings.get("PreemptType", ""), settings.get("PreemptMode", "OFF").upper()
    if kind.endswith("/none") or not kind:
        yield ok("preemption", "none on this cluster")
        return
    signal = "preempt_send_user_signal" in settings.get("SlurmctldParameters", "")
    when = "USR2 comes first" if signal else "TERM comes first (no preempt_send_user_signal)"
    text = f"{kind}, {mode}; {when}"
    if "CANCEL" in mode:
        yield warn("preemption", text, "preempted tasks do not come back; recaption.retry goes on")
    elif "SUSPEND" in mode or "GANG" in mode:
        yield warn(
            "preemption", text, "suspended tasks keep their GPUs' memory, and may look stuck"
        )
    else:
        yield ok("preemption", text)


def _partitions(config: Config, settings: dict[str, str]) -> Iterator[Check]:
    known = _records("partition")
    wanted = (config.slurm.partition or "").split(",")
    if not config.slurm.partition:
        wanted = [name for name, record in known.items() if record.get("Default") == "YES"]
        if not wanted:
            advice = f"slurm.partition=…, one of {', '.join(known)}"
            yield fail("partition", "the cluster has no default", advice)
            return
    for name in wanted:
        if name not in known:
            advice = f"one of {', '.join(known) or 'none that are shown'}"
            yield fail("partition", f"slurm.partition={name}: no such partition", advice)
            continue
        yield from _partition(config, name, known[name], settings)


def _partition(
    config: Config, name: str, record: dict[str, str], settings: dict[str, str]
) -> Iterator[Check]:
    most = record.get("MaxTime", "UNLIMITED")
    text = (
        f"{name}: {record.get('State', '?')}, {record.get('TotalNodes', '?')} nodes, MaxTime {most}"
    )
    if record.get("State") != "UP":
        yield fail("partition", text, "another slurm.partition, or ask the site")
    elif config.slurm.time and _minutes(most) and config.slurm.time > _minutes(most):
        text = f"slurm.time={config.slurm.time} minutes is over {name}'s MaxTime {most}"
        yield fail("partition", text, f"slurm.time={_minutes(most)} at most")
    else:
        yield ok("partition", text)
    mode = record.get("PreemptMode", settings.get("PreemptMode", "OFF"))
    if mode.upper() == "REQUEUE":
        grace = record.get("GraceTime", "0")
        if grace.strip("0:") == "":
            advice = "the captions in flight are lost at a preemption; the journal keeps the others"
            yield warn("grace", f"{name}: none before a preempted task is killed", advice)
        else:
            yield ok("grace", f"{name}: {grace} s before a preempted task is killed")


def _accounting(config: Config, settings: dict[str, str]) -> Iterator[Check]:
    kind = settings.get("AccountingStorageType", "")
    asked = {"account": config.slurm.account, "qos": config.slurm.qos}
    if not kind.endswith("slurmdbd"):
        advice = "status cannot tell why Slurm ended a task, such as OUT_OF_MEMORY; see its log"
        yield warn("accounting", f"none ({kind or 'not shown'})", advice)
        for key, value in asked.items():
            if value:
                advice = "no accounting to look it up in; sbatch's answer below counts"
                yield warn(key, f"slurm.{key}={value}", advice)
        return
    yield ok("accounting", kind)
    columns = "format=account,qos"
    user = getpass.getuser()
    shown = _answer("sacctmgr", "-nP", "show", "assoc", f"user={user}", columns)
    mine = [line.split("|") for line in shown.splitlines() if "|" in line]
    choices = {
        "account": sorted({row[0] for row in mine}),
        "qos": sorted({name for row in mine for name in row[1].split(",") if name}),
    }
    for key, value in asked.items():
        if value and choices[key] and value not in choices[key]:
            advice = f"one of {', '.join(choices[key])}"
            yield fail(key, f"slurm.{key}={value}: {user} may not use it", advice)
        elif value and choices[key]:
            yield ok(key, value)
        elif value:
            yield warn(key, f"slurm.{key}={value}", f"sacctmgr shows no {key} of {user}")


def _test_only(config: Config) -> Iterator[Check]:
    """sbatch --test-only, with the same script that launch would submit."""
    with tempfile.TemporaryDirectory() as folder:
        paths = RunPaths(Path(folder))
        paths.logs.mkdir(parents=True)
        script = Path(folder) / "batch.sh"
        try:
            script.write_text(sbatch_text(paths, config, config.slurm.tasks or 2))
        except UserError as e:
            yield fail("sbatch", str(e), "change that key")
            return
        command = ["sbatch", "--test-only", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    text = next((x for x in said if "error" in x), said[-1] if said else "says nothing")
    text = re.sub(r"^(sbatch: |error: |allocation failure: )*", "", text)
    if done.returncode:
        advice = "change the slurm.* key that it is about (slurm.partition, account, qos, gpus, …)"
        yield fail("sbatch", f"would refuse the job: {text}", advice)
    else:
        yield ok("sbatch", re.sub(r"^Job \d+ ", "would take the job ", text))


def _records(kind: str) -> dict[str, dict[str, str]]:
    """The records of `scontrol show KIND`, by name."""
    found = {}
    for line in _answer("scontrol", "-o", "show", kind).splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        name = fields.get(f"{kind.capitalize()}Name")
        if name:
            found[name] = fields
    return found


def _minutes(text: str) -> int | None:
    try:
        return minutes(text)
    except UserError:  # UNLIMITED, NONE
        return None


def _answer(*command: str) -> str:
    done = subprocess.run(
        command,
        env=slurm.environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout
