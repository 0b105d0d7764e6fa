"""Runs a short part of the chaos suite, and proves that its checks can fail. ``make chaos`` runs all of it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chaos.backing_up import Backups
from chaos.checks import compare, drain, misplaced
from chaos.runner import run_one
from chaos.schedule import Schedule, draw
from chaos.stage import Stage, start_stage
from chaos.whole_backups import TakenBackup, together
from chaos.world import make_world

pytestmark = pytest.mark.integration


def schedule_of(seed: int) -> Schedule:
    """Return a schedule that is short and needs no small file systems."""
    return draw(seed, seconds=2, max_latency_seconds=1, full_disks=False)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two S3 servers behind fault proxies, and a template cluster."""
    with start_stage(tmp_path_factory.mktemp("chaos")) as stage:
        yield stage


@pytest.mark.parametrize("seed", [3, 35, 41])
def test_nothing_is_lost(stage: Stage, seed: int) -> None:
    """After the schedule's faults every archived file is on both stores, and the spool is empty.

    The last two draw what other servers, base backups and an expiry do to an archive.
    """
    outcome = run_one(stage, schedule_of(seed))
    assert outcome.problems == []
    assert outcome.files_checked >= 10


def test_the_checks_see_what_is_wrong(stage: Stage) -> None:
    """The checks name a missing copy, a copy with other content and a good file in quarantine."""
    quiet = replace(schedule_of(12), seconds=1, events=(), linger_seconds=60)
    with make_world(stage, quiet) as world:
        world.load.start()
        lost, changed = world.cluster.switch_wal(), world.cluster.switch_wal()
        world.load.stop()
        drain(world)
        assert compare(world).lost == ()
        for server, bucket, name in (
            (stage.pair.r2, stage.buckets.r2, lost),
            (stage.pair.b2, stage.buckets.b2, changed),
        ):
            key = next(key for key in server.keys(bucket, world.prefix) if f"/{name}." in key)
            other = server.keys(bucket, world.prefix)[0]
            server.client().delete_object(Bucket=bucket, Key=key)
            if name == changed:
                server.client().put_object(Bucket=bucket, Key=key, Body=server.read(bucket, other))
        (world.quarantine / f"{lost}.20261122T000000.000000Z").touch()
        assert compare(world).lost == (
            f"r2: '{lost}' is lost",
            f"b2: '{changed}' has other content than PostgreSQL's",
        )
        assert list(misplaced(world, set())) == [
            f"'{lost}.20261122T000000.000000Z' is in quarantine, and is PostgreSQL's own"
        ]


def test_a_base_backup_that_lost_an_object_is_not_called_restorable_unseen(stage: Stage) -> None:
    """The checks name the object, and two base backups that were stored at the same time."""
    quiet = replace(schedule_of(12), seconds=1, events=(), linger_seconds=3)
    with make_world(stage, quiet) as world:
        backups = Backups(world)
        backups.begin()
        assert (backups.settle(), backups.taken, list(backups.problems())) == ([], 1, [])
        key = next(key for key in stage.pair.b2.keys(stage.buckets.b2, world.prefix) if "/base.000000." in key)
        backup_id, name = key.split("/")[-2:]
        stage.pair.b2.client().delete_object(Bucket=stage.buckets.b2, Key=key)
        assert list(backups.problems()) == [f"b2: '{backup_id}' was called restorable: object '{name}' is not there"]
        both = [TakenBackup(child, backup_id, frozenset({"r2"}), frozenset()) for child in ("one", "other")]
        assert list(together(world, both)) == ["r2: 'one' and 'other' were stored at the same time"]


def test_a_schedule_is_drawn_from_its_seed_alone() -> None:
    """The same seed gives the same faults; the next one gives others."""
    assert schedule_of(42) == schedule_of(42)
    assert schedule_of(42).events != schedule_of(43).events
