"""A throwaway Slurm cluster for tests: a thin, typed handle on slurm/up.sh and slurm/down.sh."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from brought_up import SCRIPTS, BroughtUp, brought_up

FOREIGN = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SINFO_", "LAB_", "SUBMITIT_")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Lab(BroughtUp):
    """A running cluster: nodes node1 .. nodeN; partitions low, low0 (no grace), high (preempts)."""

    scripts = ("up.sh", "down.sh")

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        self.settings = settings
        self.conf = directory / "etc" / "slurm.conf"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        path = f"{clean['PATH']}:{SYSTEM_PATH}" if clean.get("PATH") else SYSTEM_PATH
        clean["PATH"] = path
        super().__init__(directory, {**clean, **settings, "LAB_DIR": str(directory)})
        self.env: dict[str, str] = {**clean, "SLURM_CONF": str(self.conf)}

    @classmethod
    def up(cls, **settings: int | str) -> Lab:
        """Starts a cluster in a temporary directory, on free ports.

        Settings are those of slurm/common.sh in lower case without LAB_: nodes=2, max_array=11,
        and shared=DIRECTORY of a volume.Volume, of which each node then has a view of its own.
        Raises Unavailable where no Slurm can be had.
        """

        def lab(directory: Path, port: int) -> Lab:
            chosen = {"port": port, **settings}
            return cls(directory, {f"LAB_{k.upper()}": str(v) for k, v in chosen.items()})

        return brought_up(lab, "rl-", ports="port" not in settings)

    # Slurm's commands

    def run(self, *command: str, check: bool = True, cwd: Path | None = None) -> str:
        """Runs a command in the cluster's environment and returns its output."""
        done = subprocess.run(
            command, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode != 0:
            said = done.stderr.strip()
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {said}")
        return done.stdout.strip()

    def sbatch(self, *arguments: str, wrap: str | None = None, cwd: Path | None = None) -> str:
        """Submits and returns the job id; output is dropped unless the arguments say where to."""
        options = [] if wrap is None else ["--wrap", wrap]
        if not any(argument.startswith(("-o", "--output")) for argument in arguments):
            options.append("--output=/dev/null")
        return self.run("sbatch", "--parsable", *options, *arguments, cwd=cwd).split(";")[0]

    def squeue(self, *arguments: str, fields: str = "%i %T") -> list[list[str]]:
        """One row of words per task still known as pending, running or completing."""
        rows = self.run("squeue", "-h", "-r", "-o", fields, *arguments).splitlines()
        return [row.split() for row in rows]

    def scontrol(self, *arguments: str, check: bool = True) -> str:
        return self.run("scontrol", *arguments, check=check)

    def scancel(self, *arguments: str) -> None:
        self.run("scancel", *arguments)

    def sinfo(self) -> dict[str, str]:
        """State of each node; a * at its end means that the node does not answer."""
        rows = self.run("sinfo", "-h", "-N", "-p", "high", "-o", "%N %T").splitlines()
        return {row.split()[0]: row.split()[1] for row in rows}

    # Questions

    def state(self, job: str) -> str:
        """PENDING, RUNNING, TIMEOUT and so on, or '' for what the controller has forgotten."""
        return self.field(job, "JobState")

    def field(self, job: str, name: str) -> str:
        shown = self.scontrol("-o", "show", "job", job, check=False)
        words = (word.partition("=") for word in shown.split())
        return next((value for key, _, value in words if key == name), "")

    def restarts(self, job: str) -> int:
        return int(self.field(job, "Restarts") or 0)

    def node_of(self, job: str) -> str:
        return self.field(job, "NodeList")

    def queue_empty(self) -> bool:
        return not self.squeue()

    def wait_until(
        self, predicate: Callable[[], object], timeout: float = 30, what: str = ""
    ) -> None:
        """Polls until the predicate holds; its failure shows the queue."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() > deadline:
                queue = self.run("squeue", "-r", check=False)
                raise AssertionError(f"not within {timeout:g} s: {what or predicate}\n{queue}")
            time.sleep(0.1)

    def wait_for(self, job: str, *states: str, timeout: float = 30) -> None:
        self.wait_until(
            lambda: self.state(job) in states, timeout, f"{job} to be {' or '.join(states)}"
        )

    def job_pids(self, job: str, command: str = "") -> list[int]:
        """Live processes of a job (an id, or ARRAY_TASK) whose command line has this text.

        Step daemons are not among them; processes that a lost node left behind are.
        """
        array, _, task = job.partition("_")
        wanted = {"SLURM_ARRAY_JOB_ID": array}
        if task:
            wanted["SLURM_ARRAY_TASK_ID"] = task
        found = []
        for pid, environment in self._processes():
            theirs = all(environment.get(k) == v for k, v in wanted.items())
            theirs = theirs or (not task and environment.get("SLURM_JOB_ID") == job)
            if theirs and _comm(pid) != "slurmstepd" and command in _command_line(pid):
                found.append(pid)
        return found

    # Mishaps

    def preempt(
        self,
        seconds: float,
        nodes: Sequence[str] | int | None = None,
        *,
        wait: bool = True,
        timeout: float = 60,
    ) -> str:
        """Lets a high-priority job take whole nodes (all, so many, these); waits until it has."""
        if nodes is None:
            nodes = list(self.sinfo())
        where = [f"--nodes={nodes}"]
        if not isinstance(nodes, int):
            where = [f"--nodes={len(nodes)}", f"--nodelist={','.join(nodes)}"]
        options = ["--partition=high", "--exclusive", "--job-name=preemptor", *where]
        job = self.sbatch(*options, wrap=f"sleep {seconds}")
        if wait:
            self.wait_for(job, "RUNNING", "COMPLETED", timeout=timeout)
        return job

    def kill_node(self, name: str) -> None:
        """Loses a node: SIGKILL to its slurmd and step daemons. The jobs' own processes live on."""
        pidfile = self.directory / "run" / f"slurmd.{name}.pid"
        victims = [int(pidfile.read_text())]
        log = str(self.directory / "log" / f"slurmd.{name}.log")
        for pid, _ in self._processes():
            if _comm(pid) == "slurmstepd" and log in _open_files(pid):
                victims.append(pid)
        for pid in victims:
            _kill(pid)
        pidfile.unlink(missing_ok=True)

    def stop_controller(self) -> None:
        """Ends slurmctld, which saves its state first; running jobs go on without it."""
        pid = int((self.directory / "run" / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        self.wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), 10, "slurmctld to end")

    def start_controller(self) -> None:
        """Starts slurmctld again, and waits until it answers."""
        done = self.script("up.sh")
        if done.returncode != 0:
            raise RuntimeError(f"up.sh: {done.stderr.strip()}")

    def kill_orphans(self) -> None:
        """Ends every process of every job of this cluster, watched or not."""
        for pid, environment in self._processes():
            if "SLURM_JOB_ID" in environment and _comm(pid) != "slurmstepd":
                _kill(pid)

    def revive_node(self, name: str, timeout: float = 30) -> None:
        """Starts the node's slurmd again and waits until the node takes jobs."""
        script = f". {SCRIPTS / 'common.sh'}; start_node {name}"
        settings = {**self.settings, "LAB_DIR": str(self.directory), "PATH": SYSTEM_PATH}
        subprocess.run(["bash", "-c", script], env=settings, timeout=30, check=True)
        usable = ("idle", "mixed", "allocated")
        self.wait_until(lambda: self.sinfo().get(name) in usable, timeout, f"{name} to be usable")

    def _processes(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Every process whose environment names this cluster."""
        mine = f"SLURM_CONF={self.conf}"
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "environ").read_text(errors="replace").split("\0")
            except OSError:
                continue
            if mine in words:
                yield int(entry.name), dict(word.split("=", 1) for word in words if "=" in word)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _open_files(pid: int) -> set[str]:
    files = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            files.add(os.readlink(link))
    return files
