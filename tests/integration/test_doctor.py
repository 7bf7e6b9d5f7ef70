"""`recaption.doctor` on this machine, with planted problems."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import write_shards
from helpers import Completed, launch, refused
from watermarking import filters, write_onnx

from recaption.__main__ import run
from recaption.doctor import main as doctor_main

Checks = dict[str, dict[str, Any]]
Look = Callable[..., Checks]


@pytest.fixture
def look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Look:
    """The doctor in this process: its checks by name; asserts the exit code."""

    def look(*words: str, code: int = 0) -> Checks:
        given = ["--json", "engine=fake", f"output.dir={tmp_path}/out", *words]
        given = [w for i, w in enumerate(given) if w.split("=")[0] not in _keys(given[i + 1 :])]
        monkeypatch.setattr(sys, "argv", ["doctor", *given])
        with pytest.raises(SystemExit) as end:
            run(doctor_main)
        out, err = capfd.readouterr()
        assert end.value.code == code, out + err
        record = json.loads(out)
        assert record["ok"] == (code == 0)
        assert list(tmp_path.glob("**/.recaption-doctor-*")) == []
        return {check["name"]: check for check in record["checks"]}

    return look


def _keys(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words}


def failures(seen: Checks) -> dict[str, str]:
    """What fails, each with what to do."""
    bad = {name: check for name, check in seen.items() if check["result"] == "fail"}
    assert all(check["advice"] for check in bad.values())
    return {name: check["text"] for name, check in bad.items()}


def doctor(*words: str, cwd: Path) -> Completed:
    return launch(*words, cwd=cwd, module="doctor")


def test_a_fit_machine(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", 3, 2, side=128, plain=True)
    before = set(tmp_path.rglob("*"))
    result = doctor("engine=fake", "data.shards=in/*.tar", "output.dir=out", cwd=tmp_path)
    assert result.returncode == 0, result
    lines = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert all(line.startswith(("ok    ", "warn  ")) for line in lines[:-1])
    assert lines[-1].endswith("0 fail")
    for part in ("input: 3 shards", "hard links: one name", "python: 3.", "gpus: ", "memory: "):
        assert any(part in line for line in lines), part
    assert set(tmp_path.rglob("*")) == before
    assert "\033" not in result.stdout


@pytest.mark.vllm
def test_the_real_engine_can_be_imported(tmp_path: Path) -> None:
    result = doctor("--json", f"output.dir={tmp_path}", cwd=tmp_path)
    seen = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.returncode == 0, result
    for name in ("vllm", "vllm import", "model", "chat template"):
        assert seen[name]["result"] == "ok", seen[name]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--wait", "soon"], "--wait: soon"),
        (["--multirun"], "--multirun"),
        (["slurm.partitoin=x"], "slurm.partitoin"),
        (["--jsn"], "--jsn"),
        (["model=none"], "model=none"),
    ],
)
def test_wrong_uses(tmp_path: Path, words: list[str], named: str) -> None:
    refused(doctor(*words, cwd=tmp_path), named)


def test_onnx_files(look: Look, tmp_path: Path) -> None:
    missing = tmp_path / "marks.onnx"
    words = ["watermark=onnx", f"watermark.path={missing}"]
    assert str(missing) in failures(look(*words, code=1))["onnx"]
    kernels, thresholds = filters()
    write_onnx(missing, kernels, thresholds, np.zeros((2, len(kernels))), np.zeros(2))
    assert look(*words)["onnx watermark"]["result"] == "ok"
    wrong = look(*words, f"watermark.sha256={'0' * 64}", code=1)
    assert "watermark.sha256" in failures(wrong)["onnx"]


def test_models(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recaption.doctor.node.build", lambda: "")  # importing it takes long
    monkeypatch.setattr("recaption.doctor.node._gpus", lambda config, gpus: [])
    model = tmp_path / "model"
    words = ["engine=vllm", "model.name=mine", f"model.path={model}"]
    assert "no such folder" in failures(look(*words, code=1))["model"]
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert "has no weights" in failures(look(*words, code=1))["model"]
    (model / "model.safetensors").write_bytes(b"x")
    found = failures(look(*words, code=1))
    assert set(found) == {"chat template"}
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks model-2.safetensors" in failures(look(*words, code=1))["model"]


def test_a_model_that_is_not_downloaded_yet(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recaption.doctor.node.build", lambda: "")
    monkeypatch.setattr("recaption.doctor.node._gpus", lambda config, gpus: [])
    words = ["engine=vllm", "model=qwen3-vl-2b", f"model.cache={tmp_path}/cache"]
    assert look(*words)["model"]["result"] == "warn"


def test_an_output_folder_that_cannot_be_written(look: Look, tmp_path: Path) -> None:
    """/proc is no place for files, for root neither."""
    assert "cannot be written" in failures(look("output.dir=/proc", code=1))["output folder"]


def test_a_file_system_without_links(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    seen = look()
    assert seen["hard links"]["result"] == "warn"
    assert seen["exclusive renames"]["result"] == "ok"
    monkeypatch.setattr("recaption.run.publish._renameat2", refuse)
    assert "no exclusive renames either" in failures(look(code=1))["hard links"]


def test_a_file_system_whose_links_replace(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda a, b: Path(b).write_bytes(Path(a).read_bytes()))
    seen = look()
    assert "succeeds" in seen["hard links"]["text"]


def test_a_folder_that_cannot_be_synced(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def refuse(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    monkeypatch.setattr(os, "fsync", refuse)
    assert set(failures(look(code=1))) == {"fsync of folders"}


def test_no_room(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "in", 2, 2, side=128, plain=True)
    real = os.statvfs

    def full(path: Any) -> os.statvfs_result:
        values = list(real(path))
        values[4], values[7] = 1, 3  # blocks and inodes that are left for users
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", full)
    assert {"space", "inodes"} <= set(failures(look(f"data.shards={tmp_path}/in/*.tar", code=1)))


def test_missing_input_and_temporary_space(look: Look, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = [f"data.shards={tmp_path}/{{0..1}}.tar", f"data.spool={tmp_path}/file/spool"]
    assert set(failures(look(*words, code=1))) == {"input", "temporary space"}


def test_a_configuration_of_ones_own(look: Look, tmp_path: Path) -> None:
    """Presets, and a primary configuration, from a folder of the user's."""
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/site.yaml").write_text(f"shards: '{tmp_path}/nosuch.tar'\n")
    assert "nosuch.tar" in failures(look("-cd", f"{tmp_path}/conf", "data=site", code=1))["input"]
    primary = f"defaults: [config, _self_]\ndata: {{shards: '{tmp_path}/lost.tar'}}\n"
    (tmp_path / "conf/mine.yaml").write_text(primary)
    options = (f"--config-dir={tmp_path}/conf", "--config-name=mine")
    assert "lost.tar" in failures(look(*options, code=1))["input"]


def test_packages(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    from recaption.doctor import packages

    real = packages._version
    versions = {"pillow": "1.0", "zstandard": None}
    monkeypatch.setattr(packages, "_version", lambda n: versions.get(n, real(n)))
    said = failures(look(code=1))["packages"]
    assert "pillow is 1.0" in said
    assert "zstandard is missing" in said


def test_a_vllm_that_the_model_cannot_do_with(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recaption.doctor.node.build", lambda: "")
    monkeypatch.setattr("recaption.doctor.node._gpus", lambda config, gpus: [])
    said = failures(look("engine=vllm", "model.vllm=>=99", code=1))
    assert "model.vllm=>=99: tiny needs vLLM >=99, and vllm" in said["vllm"]


def test_no_slurm_here(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = failures(look("slurm=cluster", code=1))
    assert "no sbatch" in found["slurm commands"]
    assert found["job"] == "not submitted"
