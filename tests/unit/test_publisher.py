"""What the publisher answers about a shard that it cannot open or finish."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recaption.errors import ShardError
from recaption.pipeline.open_shards import OpenShards, _Opening
from recaption.pipeline.publisher import Context, Finish, Finished, Open, answer
from recaption.prepare.children import Crashed
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard
from recaption.shard.write import Settings

SETTINGS = Settings("m", ("short",), ("jpg",), "caption", False, False, ())


@pytest.mark.parametrize("finishes", [False, True])
def test_a_failure_counts_for_nothing_where_another_attempt_was_faster(
    finishes: bool, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path)
    for folder in paths.folders():
        folder.mkdir()
    missing = f"{tmp_path}/in/a.tar"
    shard = InputShard(missing, "a.tar", 10)
    job = Finish(shard, missing, "digest", {}) if finishes else Open(shard, missing, None)
    context = Context(paths, "fingerprint", "0-0-0", SETTINGS, None)
    assert isinstance(answer(context, job), ShardError)
    paths.marker("a.tar").write_text("{}")
    assert answer(context, job) == Finished({}, won=False)


def test_a_publisher_that_dies_behind_the_marker_costs_no_try(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    for folder in paths.folders():
        folder.mkdir()
    shard = InputShard(f"{tmp_path}/in/a.tar", "a.tar", 10)
    told: list[Any] = []
    shards: Any = object.__new__(OpenShards)
    shards.context = Context(paths, "fingerprint", "0-0-0", SETTINGS, None)
    shards.source = SimpleNamespace(
        published=lambda position, finished: told.append(finished),
        failed=lambda position, reason: told.append(reason),
    )
    dead = _Opening(0, shard, shard.url, None, None), Crashed("worker died (exit code -9)")
    shards.pool = SimpleNamespace(receive=lambda worker: dead)
    shards.receive(None)
    paths.marker("a.tar").write_text("{}")
    shards.receive(None)
    assert told == ["worker died (exit code -9)", Finished({}, won=False)]
