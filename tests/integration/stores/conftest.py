"""Local object stores, one server each for all tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from stores import S3, Faults, Hub, hub_server, s3_server


@pytest.fixture(scope="session")
def _s3() -> Iterator[tuple[str, Faults]]:
    with s3_server() as served:
        yield served


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: str) -> None:
    """An environment without any access to real stores."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "HF_", "FSSPEC_", "HUGGING")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", f"{tmp_path}/hf-home")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/no-config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/no-credentials")


@pytest.fixture
def s3(_s3: tuple[str, Faults], clean: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A bucket of its own, and the environment that finds it."""
    store = S3(_s3[0], f"bucket-{uuid.uuid4().hex}", _s3[1])
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    store.client.create_bucket(Bucket=store.bucket)
    store.faults.clear()
    yield store
    store.faults.clear()


@pytest.fixture
def hub(clean: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub, and the environment that finds it."""
    with hub_server() as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        yield hub
