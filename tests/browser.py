"""A real headless Chromium for tests of pages: Debian's, which is installed where the tests run as root."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PACKAGES = ("chromium", "fonts-liberation")
LOCK = Path("/run/lock/recaption-slurm-lab")  # slurm/up.sh holds it while it installs
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start it; skips the test where there is none and none can be installed."""
    path = _found() or _installed()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opened(
    chromium: Browser, file: Path, *, width: int = 1280, dark: bool = False
) -> Iterator[Page]:
    """A page from file://, without a network; AssertionError if it logs, errs or asks for anything."""
    complaints: list[str] = []
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )

    def heard(message: ConsoleMessage) -> None:
        complaints.append(f"{message.type}: {message.text}")

    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: _check(request.url, file, complaints))
    page.goto(file.as_uri())
    page.wait_for_selector("#count:not(:empty)", state="attached")
    yield page
    context.close()
    assert complaints == []


def _check(url: str, file: Path, complaints: list[str]) -> None:
    if url.partition("#")[0] != file.as_uri() and not url.startswith("data:"):
        complaints.append(f"request: {url}")


def _found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def _installed() -> str:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip(f"no {NAMES[0]} here; as root, the tests install it")
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for refresh in (False, True):
            if refresh:
                _apt_get("update")
            done = _apt_get("install", "-y", "--no-install-recommends", *PACKAGES)
            path = _found()
            if path:
                return path
    pytest.skip(f"apt-get could not install {NAMES[0]}: {done.stderr.strip()[-300:]}")


def _apt_get(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *words],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
