"""Which shards tasks take from each other, and which they leave alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from recaption.config.schema import Config
from recaption.pipeline.publisher import Finished
from recaption.run.paths import RunPaths
from recaption.run.record import InputShard, Run, Submission, plain_config
from recaption.run.tasklog import TaskLog
from recaption.task.claims import Claims

SECONDS = 0.5


class Site:
    """A run directory of six shards, with two tasks of three shards each."""

    def __init__(self, folder: Path) -> None:
        self.paths = RunPaths(folder)
        for path in self.paths.folders():
            path.mkdir(parents=True)
        shards = [InputShard(f"/in/{n}.tar", f"{n}.tar", 100) for n in range(6)]
        self.run = Run("f", {}, [], {}, shards, {}, 0.0)

    def task(self, number: int, *, steal: bool = True, restart: int = 0) -> Claims:
        config = Config()
        config.task.steal, config.task.lease_seconds = steal, SECONDS
        record = plain_config(config)
        submission = Submission(0, record, list(range(6)), [[0, 1, 2], [3, 4, 5]], 0.0)
        attempt = f"0-{number}-{restart}-{time.monotonic_ns()}"
        log = TaskLog(self.paths.task_log(0, number, attempt))
        return Claims(self.paths, self.run, submission, number, attempt, log)

    def publish(self, claims: Claims, position: int) -> None:
        self.paths.marker(f"{position}.tar").write_text("{}")
        claims.published(position, Finished({}, won=True))

    def lease(self, position: int) -> Path:
        return self.paths.lease(f"{position}.tar")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def take(claims: Claims, seconds: float = 3.0) -> int | None:
    """The next shard that a task gets, asking as often as its loop does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not claims.exhausted():
        claims.next_scan = 0.0
        following = claims.next()
        if following:
            return following[0]
        time.sleep(0.02)
    return None


def finish(site: Site, claims: Claims, *positions: int) -> None:
    for position in positions:
        assert take(claims) == position
        assert claims.begin(position)
        site.publish(claims, position)


def test_own_shards_in_order_then_the_others_from_their_end(site: Site) -> None:
    claims = site.task(0)
    finish(site, claims, 0, 1, 2, 5, 4, 3)
    assert take(claims) is None
    assert claims.exhausted()
    assert list(site.paths.leases.iterdir()) == []


def test_without_stealing_only_its_own(site: Site) -> None:
    claims = site.task(0, steal=False)
    finish(site, claims, 0, 1, 2)
    assert take(claims) is None
    assert claims.exhausted()


def test_a_shard_at_work_is_left_alone_one_opened_ahead_is_not(site: Site) -> None:
    slow, quick = site.task(1), site.task(0)
    assert [slow.next(), slow.next(), slow.next()] == [(p, site.run.shards[p]) for p in (3, 4, 5)]
    assert slow.begin(3)
    finish(site, quick, 0, 1, 2, 5, 4)
    assert not slow.begin(4)
    assert not slow.begin(5)
    slow.leases.last_heartbeat = -10.0
    slow.heartbeat()
    assert take(quick, 3 * SECONDS) in (None, 3)  # its holder is silent from now on
    assert json.loads(site.lease(3).read_bytes())["attempt"].startswith("0-")


def test_a_silent_holder_loses_its_shard(site: Site) -> None:
    dead, quick = site.task(1), site.task(0)
    assert take(dead) == 3
    finish(site, quick, 0, 1, 2, 5, 4)
    before = time.monotonic()
    assert take(quick) == 3
    assert time.monotonic() - before >= SECONDS


def test_a_later_attempt_of_the_same_task_goes_on_at_once(site: Site) -> None:
    orphan, later = site.task(0), site.task(0, restart=1)
    assert take(orphan) == 0
    assert take(later) == 0
    assert not orphan.superseded
    orphan.leases.last_heartbeat = -10.0
    orphan.heartbeat()
    assert orphan.superseded
    assert json.loads(site.lease(0).read_bytes())["attempt"] == later.attempt
    orphan.release()
    assert site.lease(0).exists()
    assert not later.superseded


def test_a_lease_that_a_crash_has_cut_short(site: Site) -> None:
    site.lease(0).write_bytes(b"")
    claims = site.task(0)
    finish(site, claims, 1, 2, 5, 4, 3)
    assert take(claims) == 0
