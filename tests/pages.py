"""`recaption.report` and the pages that it makes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from helpers import Completed, launch
from playwright.sync_api import Page


def report(*words: str, cwd: Path) -> Completed:
    return launch(*words, cwd=cwd, module="report")


def reported(*words: str, cwd: Path) -> str:
    result = report(*words, cwd=cwd)
    assert result.returncode == 0, result
    assert result.stderr == ""
    return result.stdout


def data_of(file: Path) -> Any:
    """The page's JSON."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text())
    assert found
    return json.loads(found[1])


def count(page: Page) -> int:
    return int(page.inner_text("#count").split(" of ")[0].replace(",", ""))
