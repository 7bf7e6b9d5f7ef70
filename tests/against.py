"""Which new tests pass on an old version too: they may show nothing of what was changed since.

    python tests/against.py 4a1ef89 tests/unit/test_names.py tests/integration/test_retry.py

The revision is unpacked into a temporary folder, with the tests (and pytest's settings) of today. Each
file runs there on its own; new are the tests whose names the revision's file of that name lacks. One
line per new test says whether it passes there. Exit code: 1 if any does, else 0.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from shown import ROOT, tests_in

TODAYS = ("tests", "pyproject.toml")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("revision", metavar="REVISION", help="the old version, as git names it")
    add("files", nargs="+", metavar="FILE", help="files of tests, below tests/")
    add("--timeout", type=int, default=120, metavar="SECONDS", help="for a test (%(default)s)")
    options = parser.parse_args()
    files = [str(Path(file).resolve().relative_to(ROOT)) for file in options.files]
    passing = 0
    with tempfile.TemporaryDirectory(prefix="against-") as folder:
        old = unpack(options.revision, Path(folder))
        for file in files:
            there = old / "before" / file
            known = tests_in(there.read_text()) if there.is_file() else set()
            new = tests_in((ROOT / file).read_text()) - known
            print(f"{file}: {len(new)} new tests", flush=True)
            for name, outcome in results(old, file, options.timeout):
                if name.partition("[")[0] in new:
                    passing += outcome == "passes"
                    print(f"  {outcome:10} {name}", flush=True)
    print(f"{passing} new tests pass on {options.revision}")
    return 1 if passing else 0


def unpack(revision: str, folder: Path) -> Path:
    """The revision's files with today's tests, and its own tests under `before/`."""
    archive = ["git", "-C", str(ROOT), "archive", revision]
    content = subprocess.run(archive, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=content, check=True)
    (folder / "before").mkdir()
    (folder / "tests").rename(folder / "before/tests")
    for name in TODAYS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


def results(folder: Path, file: str, timeout: int) -> Iterator[tuple[str, str]]:
    """Every test of a file (`Class::name` of a class's) with what becomes of it there."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", file, f"--timeout={timeout}"]
    subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--junitxml={report}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if not report.is_file():
        yield from ((name, "no report") for name in tests_in((folder / file).read_text()))
        return
    module = file.removesuffix(".py").replace("/", ".")
    for case in ElementTree.parse(report).iter("testcase"):
        inside = case.get("classname", "").removeprefix(module).lstrip(".")
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        if module not in (case.get("classname") or "") and bad:  # the file cannot be imported there
            yield from ((name, "not loaded") for name in tests_in((folder / file).read_text()))
            return
        name = f"{inside}::{case.get('name')}" if inside else str(case.get("name"))
        yield name, "skipped" if "skipped" in bad else "fails" if bad else "passes"


if __name__ == "__main__":
    sys.exit(main())
