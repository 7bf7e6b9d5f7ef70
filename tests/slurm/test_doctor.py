"""`recaption.doctor` on a real Slurm: what a job sees, and what is wrong with a site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slurm.conftest import LabMaker, ShardMaker
from slurm.lab import Lab
from slurm.runs import Completed, command
from watermarking import filters, write_onnx

WORDS = ("engine=fake", "slurm=cluster", "slurm.cpus=2", "slurm.mem=1G", "slurm.gpus=1")


def doctor(lab: Lab, cwd: Path, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Checks by name; those of the node by `NAME@node`."""
    done = run(lab, cwd, *words)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    record = json.loads(done.stdout)
    assert record["ok"] == (code == 0)
    return {f"{c['name']}{'@node' if c['where'] else ''}": c for c in record["checks"]}


def run(lab: Lab, cwd: Path, *words: str) -> Completed:
    given = (*(w for w in WORDS if w.split("=")[0] not in {v.split("=")[0] for v in words}), *words)
    done = command(lab, "doctor", "--json", f"output.dir={cwd}/out", *given, cwd=cwd)
    assert "Traceback" not in done.stderr
    assert list(cwd.glob("**/.recaption-doctor-*")) == []
    return done


def test_a_fit_site(lab: Lab, make_shards: ShardMaker, tmp_path: Path) -> None:
    shards = make_shards(2, 4)
    seen = doctor(lab, tmp_path, shards.words(), "slurm.time=20")
    assert {c["result"] for c in seen.values()} <= {"ok", "warn"}
    assert seen["input"]["text"].startswith("2 shards")
    assert "low: UP, 4 nodes" in seen["partition"]["text"]
    assert "USR2 comes first" in seen["preemption"]["text"]
    assert seen["grace"]["text"].startswith("low: 5 s")
    assert "MaxArraySize 1001" in seen["tasks"]["text"]
    assert seen["accounting"]["result"] == "warn"
    assert "would take the job" in seen["sbatch"]["text"]
    assert " ran on node" in seen["job"]["text"]
    assert seen["job"]["result"] == "ok"
    for name in ("seen by the job", "seen here", "links between nodes", "scontrol in the job"):
        assert seen[name]["result"] == "ok", seen[name]
    assert seen["python@node"]["where"].startswith("node")
    assert seen["python@node"]["text"] == seen["python"]["text"]
    lab.wait_until(lab.queue_empty, 30, "the doctor's job to be gone")


@pytest.mark.parametrize(
    ("word", "check", "said"),
    [
        ("slurm.partition=nonsense", "partition", "low, low0, high"),
        ("slurm.constraint=nonsense", "sbatch", "feature"),
        ("slurm.gpus=9", "sbatch", "node configuration"),
    ],
)
def test_what_the_controller_would_refuse(
    lab: Lab, tmp_path: Path, word: str, check: str, said: str
) -> None:
    seen = doctor(lab, tmp_path, word, code=1)
    assert seen[check]["result"] == "fail"
    assert said in f"{seen[check]['text']} {seen[check]['advice']}"
    assert seen["sbatch"]["result"] == "fail"
    assert seen["job"]["text"] == "not submitted"
    assert lab.queue_empty()


def test_a_partition_without_grace(lab: Lab, tmp_path: Path) -> None:
    seen = doctor(lab, tmp_path, "slurm.partition=low0")
    assert seen["grace"]["result"] == "warn"


def test_a_job_that_does_not_start_is_cancelled(lab: Lab, tmp_path: Path) -> None:
    lab.preempt(300)
    seen = doctor(lab, tmp_path, "--wait=3")
    assert seen["job"]["result"] == "warn"
    assert "has been canceled" in seen["job"]["text"]
    assert "python@node" not in seen
    assert not [row for row in lab.squeue(fields="%i %j") if "doctor" in row[1]]


def test_a_job_that_cannot_even_start_python(lab: Lab, tmp_path: Path) -> None:
    seen = doctor(lab, tmp_path, "slurm.python=/no/such/python", code=1)
    assert seen["job"]["result"] == "fail"
    assert "/no/such/python" in seen["job"]["text"]


def test_an_onnx_file_that_is_another_on_the_node(lab: Lab, tmp_path: Path) -> None:
    kernels, thresholds = filters()
    weight, bias = np.zeros((2, len(kernels))), np.zeros(2)
    model = write_onnx(tmp_path / "marks.onnx", kernels, thresholds, weight, bias)
    words = ["watermark=onnx", f"watermark.path={model}"]
    seen = doctor(lab, tmp_path, *words)
    assert seen["onnx watermark"]["text"] == seen["onnx watermark@node"]["text"]
    (tmp_path / "other.onnx").write_bytes(model.read_bytes() + b"\x00")
    swap = f"slurm.setup=['mv {tmp_path}/other.onnx {model}']"
    seen = doctor(lab, tmp_path, *words, swap, code=1)
    assert seen["onnx watermark"]["result"] == "ok"
    assert seen["onnx@node"]["result"] == "fail"
    assert "watermark.sha256" in seen["onnx@node"]["text"]


def test_a_folder_that_the_nodes_do_not_share(lab: Lab, tmp_path: Path) -> None:
    """What was written here is not there when the job looks."""
    hide = f"mv {tmp_path}/.recaption-doctor-*/here-1 {tmp_path}/hidden"
    seen = doctor(lab, tmp_path, f"slurm.setup=['{hide}']", "task.lease_seconds=3", code=1)
    assert seen["seen by the job"]["result"] == "fail"
    assert seen["seen here"]["result"] in ("ok", "warn")


def test_accounting_knows_accounts(make_lab: LabMaker, tmp_path: Path) -> None:
    lab = make_lab(nodes=1, accounting=1)
    seen = doctor(lab, tmp_path, "slurm.account=nonsense", code=1)
    assert seen["accounting"]["result"] == "ok"
    assert seen["account"]["result"] == "fail"
    assert "root" in seen["account"]["advice"]
    seen = doctor(lab, tmp_path, "slurm.account=root", "slurm.qos=normal")
    assert [seen[name]["result"] for name in ("account", "qos", "job")] == ["ok"] * 3
