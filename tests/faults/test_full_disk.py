"""A full disk at any stage: the task ends with a message, nothing partial is left, a rerun completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tars import plain_members, write_tar

pytestmark = [pytest.mark.faults, pytest.mark.slow]
HERE = Path(__file__).parent


def in_namespace(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run with mounts of its own, which are gone with it."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-r", "--mount"]
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*unshare, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_stage_of_writing(tmp_path: Path) -> None:
    result = in_namespace(sys.executable, str(HERE / "full_disk.py"), str(tmp_path), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr[-6000:]
    stages = json.loads(result.stdout.splitlines()[-1])
    print(stages)
    for stage in ("N.tar", "N.parquet", "N.json", "N.zst", "N.jsonl", "finished"):
        assert stages.get(stage), stages


LAUNCH = """
mkdir disk && mount -t tmpfs -o size=1m tmpfs disk
free=$(df --output=avail -k disk | tail -1)
fallocate -l $((free - {left}))k disk/ballast
launch="{python} -m recaption.launch data.shards=set/00000.tar engine=fake output.dir=disk/run"
$launch; echo "code $?"
find disk/run -name '*.tar' -o -path '*/tmp/*'
rm disk/ballast
$launch; echo "code $?"
"""


@pytest.mark.parametrize("left", [0, 40, 120])
def test_the_launch_says_so(left: int, tmp_path: Path) -> None:
    write_tar(tmp_path / "set/00000.tar", plain_members(60))
    script = LAUNCH.format(left=left, python=sys.executable)
    result = in_namespace("bash", "-c", script, cwd=tmp_path)
    first, _, then = result.stdout.partition("code ")
    code, rest = then[0], then[1:]
    assert code in ("12" if left == 0 else "1"), result
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert ".tar" not in rest.split("run directory")[0], "nothing partial is visible"
    assert "/tmp/" not in rest.split("run directory")[0].replace(str(tmp_path), "")
    assert "60 captioned" in rest
    assert rest.rstrip().endswith("code 0")
    del first
