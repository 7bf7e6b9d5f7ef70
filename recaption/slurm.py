"""What Slurm says about jobs; it is asked second, after the run directory."""

from __future__ import annotations

import subprocess


def queued(arrays: list[str]) -> bool:
    """Whether any of these jobs is still known to the queue; True while nobody can tell."""
    try:
        shown = subprocess.run(
            ["squeue", "--noheader", "--format=%i", "--jobs", ",".join(arrays)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    if shown.returncode:
        return "Invalid job id" not in shown.stderr
    return bool(shown.stdout.strip())
