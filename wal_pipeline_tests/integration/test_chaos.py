"""Runs a short part of the chaos suite, and proves that its checks can fail. ``make chaos`` runs all of it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chaos.backing_up import Backups
from chaos.checks import compare, drain, misplaced
from chaos.losing import HostLoss
from chaos.runner import run_one
from chaos.schedule import Kind, Schedule, draw
from chaos.stage import Stage, start_stage
from chaos.troubles import Span, Troubles, calm_spans
from chaos.whole_backups import TakenBackup, together
from chaos.world import make_world
from testbed.ledger import loss_of

pytestmark = pytest.mark.integration


def schedule_of(seed: int) -> Schedule:
    """Return a schedule that is short and needs no small file systems."""
    return draw(seed, seconds=2, max_latency_seconds=1, full_disks=False)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two S3 servers behind fault proxies, and a template cluster."""
    with start_stage(tmp_path_factory.mktemp("chaos")) as stage:
        yield stage


@pytest.mark.parametrize("seed", [41, 1310, pytest.param(35, marks=pytest.mark.left_out)])
def test_nothing_is_lost(stage: Stage, seed: int) -> None:
    """After the schedule's faults every archived file is on both stores, and the spool is empty.

    They draw what other servers, base backups and an expiry do to an archive. The first loses its host among the
    faults; in the second a new timeline begins in the middle of a shipped segment.
    """
    schedule = schedule_of(seed)
    outcome = run_one(stage, schedule, slack_seconds=5)  # tests run beside others
    assert outcome.problems == []
    assert outcome.files_checked >= 10
    assert outcome.shipper_starts >= 1
    assert outcome.host_loss is not None
    lost_at_once = schedule.lost_after_seconds is not None
    assert lost_at_once or outcome.host_loss.loss.acknowledged > len(outcome.host_loss.loss.missing)


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
            # Not a piece: the first may hold all of the very segment.
            other = next(key for key in server.keys(bucket, world.prefix) if "/wal/" in key and name not in key)
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


def test_the_loss_of_a_host_is_judged() -> None:
    """What is younger than what is owed may be missing; an older commit, a hole and a foreign commit are named."""

    def problems(found: set[int], owed_seconds: float) -> list[str]:
        loss = loss_of({1: 10.0, 2: 12.0, 3: 13.0}, range(1, 4), found, lost_at=15.0)
        return list(HostLoss(loss, owed_seconds, None).problems())

    assert problems({1, 2, 3}, 2.0) == []
    assert problems({1, 2}, 2.0) == []
    assert problems({1}, 2.0) == [
        "after the loss of the host, 2 acknowledged commits are missing, the oldest 3.00 s old, expected at most 2.00 s"
    ]
    assert problems({1, 3, 9}, 9.0) == [
        "after the loss of the host, commits are there that nobody made: (9,)",
        "after the loss of the host, commit 2 is missing and later ones are there",
    ]


def test_a_schedule_is_drawn_from_its_seed_alone() -> None:
    """The same seed gives the same faults; the next one gives others."""
    assert schedule_of(42) == schedule_of(42)
    assert schedule_of(42).events != schedule_of(43).events


def test_every_schedule_has_faults_of_shipping() -> None:
    """One to three of them, beside those that it had before; a promotion among them follows a crash."""
    shipping = {kind for kind in Kind if "shipper" in kind.value or "piece" in kind.value} | {Kind.PROMOTION}
    schedules = [schedule_of(seed) for seed in range(1, 200)]
    assert all(any(event.kind in shipping for event in schedule.events) for schedule in schedules)
    assert shipping <= {event.kind for schedule in schedules for event in schedule.events}
    assert {schedule.lost_after_seconds is None for schedule in schedules} == {True, False}
    assert {schedule.lying_pieces for schedule in schedules} == {"r2", "b2", None}


def test_a_commit_is_owed_once_one_store_had_no_trouble_for_long_enough() -> None:
    """A trouble of one store excuses nothing while the other one works; one of the shipper excuses both."""
    troubles = Troubles()

    def owed_before(*usable: str) -> float:
        return troubles.owed_before(100.0, 2.0, begun_at=90.0, usable=usable)

    assert owed_before("r2", "b2") == 98.0
    troubles.add(95.0, 99.0, "r2")
    assert (owed_before("r2", "b2"), owed_before("r2")) == (98.0, 93.0)
    troubles.add(98.5, 99.5)
    assert (owed_before("r2", "b2"), owed_before("r2")) == (96.5, 93.0)
    troubles.add(90.0, 101.0)
    assert owed_before("r2", "b2") == 90.0


def test_calm_spans_are_what_troubles_leave() -> None:
    """Troubles overlap, touch the edges and lie outside."""
    within = Span(10.0, 20.0)
    assert calm_spans([], within) == [within]
    troubles = [Span(14.0, 15.0), Span(12.0, 14.5), Span(9.0, 10.5), Span(19.0, 30.0), Span(40.0, 50.0)]
    assert calm_spans(troubles, within) == [Span(10.5, 12.0), Span(15.0, 19.0)]
    assert calm_spans([Span(0.0, 50.0)], within) == []
