"""What Slurm's commands are called with."""

from __future__ import annotations

from pathlib import Path

import pytest

from recaption.cli import slurm


def test_a_users_filters_hide_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, output in [("squeue", "7|RUNNING|n1|None"), ("sacct", "8|FAILED"), ("scancel", "")]:
        script = f"#!/bin/sh\n[ $SLURM_CONF ] && ! env | grep -q PENDING && echo '{output}'\n"
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("SQUEUE_STATES", "SACCT_LOCAL", "SCANCEL_INTERACTIVE", "SINFO_STATES"):
        monkeypatch.setenv(name, "PENDING")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    assert slurm.jobs(["7"]) == {"7": slurm.Job("RUNNING", "None", "n1")}
    assert slurm.ended(["8"]) == {"8": "FAILED"}
    assert slurm.cancel(["7"]) == ""
