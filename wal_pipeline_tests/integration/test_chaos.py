"""Runs a short part of the chaos suite, and proves that its checks can fail. ``make chaos`` runs all of it."""

import gzip
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from chaos.after_loss import counted_stores
from chaos.backing_up import Backups
from chaos.checks import compare, drain, misplaced
from chaos.losing import HostLoss, lost_in_reach
from chaos.reach import SEGMENT_BYTES, StoredWal
from chaos.restoring import back_up
from chaos.runner import run_one
from chaos.schedule import STORES, Kind, Schedule, draw
from chaos.stage import Stage, start_stage
from chaos.stops import Faults, Stop, could_be_served, faults_of_stop, read_stop
from chaos.troubles import Span, Troubles, calm_spans
from chaos.whole_backups import TakenBackup, together
from chaos.world import World, make_world
from testbed.ledger import loss_of
from wal_pipeline.archive.format.piece import piece_to_metadata
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.wal.names import require_file_name, segment_name
from wal_pipeline_tests.support.pieces import cut

pytestmark = pytest.mark.integration


def schedule_of(seed: int) -> Schedule:
    """Return a schedule that is short and needs no small file systems."""
    return draw(seed, seconds=2, max_latency_seconds=1, full_disks=False)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two S3 servers behind fault proxies, and a template cluster."""
    with start_stage(tmp_path_factory.mktemp("chaos")) as stage:
        yield stage


@pytest.mark.left_out
@pytest.mark.parametrize("seed", [41, 1310, 35])
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


@pytest.mark.left_out
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


def test_what_lies_in_reach_is_owed_whatever_the_troubles() -> None:
    """A missing commit before the end of the stores' WAL is named; by the next one's place where its own is unknown."""
    ends = {1: 100, 2: 200, 4: 400, 5: 500}
    assert lost_in_reach((2, 3, 4, 5), ends, 399) == (2,)
    assert lost_in_reach((2, 3, 4, 5), ends, 400) == (2, 3, 4)
    assert lost_in_reach((6,), ends, 900) == ()
    loss = loss_of({1: 10.0, 2: 12.0}, range(1, 3), {1}, lost_at=15.0)
    found = HostLoss(loss, 9.0, "troubles of shipping", end_lsn=0x3000000, in_reach=(2,))
    assert list(found.problems()) == [
        "after the loss of the host, 1 commits are missing that lie before 0/3000000, up to which the stores had all "
        "WAL, the first is 2"
    ]


def test_the_reach_ends_at_the_first_hole(stage: Stage) -> None:
    """Whole segments, then good pieces on usable stores, from the newest base backup on; a damaged object is none."""
    quiet = replace(schedule_of(12), seconds=1, events=(), linger_seconds=3)
    with make_world(stage, quiet) as world:
        begins = back_up(world)
        world.load.start()
        last = [world.cluster.switch_wal() for _ in range(3)][-1]
        world.load.stop()
        drain(world)
        world.shipping.stop()
        world.cluster.kill()
        number = 1 + max(require_file_name(name).number(SEGMENT_BYTES) for name in StoredWal(world, STORES).files)
        end = number * SEGMENT_BYTES
        assert require_file_name(begins).number(SEGMENT_BYTES) < require_file_name(last).number(SEGMENT_BYTES) < number
        for store in STORES:
            remove(stage, store, world.prefix, "/tail/")
        assert StoredWal(world, STORES).end_lsn(None) == end
        first, second = (segment_name(1, one, SEGMENT_BYTES).name for one in (number, number + 1))
        put_real_pieces(stage, world, first, r2=(0, 4096, SEGMENT_BYTES), b2=(0, 4096))
        put_real_pieces(stage, world, second, b2=(0, 8192))
        assert StoredWal(world, STORES).end_lsn(None) == end + SEGMENT_BYTES + 8192
        assert StoredWal(world, ("r2",)).end_lsn(None) == end + SEGMENT_BYTES
        assert StoredWal(world, ("b2",)).end_lsn(None) == end + 4096
        assert StoredWal(world, STORES).lacking("r2", [last, first]) == [first]
        spoil(stage, "r2", world.prefix, f"/{first}/00001000-")
        assert StoredWal(world, STORES).end_lsn(None) == end + 4096
        for store in STORES:
            spoil(stage, store, world.prefix, f"/{last}.gz")
        assert StoredWal(world, STORES).lacking("r2", [last, first]) == [last, first]
        assert StoredWal(world, STORES).end_lsn(None) == require_file_name(last).start_lsn(SEGMENT_BYTES)


def remove(stage: Stage, store: str, prefix: str, part: str) -> None:
    """Remove the objects whose key has this part."""
    for key in stage.server(store).keys(stage.bucket(store), f"{prefix}/"):
        if part in key:
            stage.server(store).client().delete_object(Bucket=stage.bucket(store), Key=key)


def spoil(stage: Stage, store: str, prefix: str, part: str) -> None:
    """Cut the objects whose key has this part."""
    server, bucket = stage.server(store), stage.bucket(store)
    for key in server.keys(bucket, f"{prefix}/"):
        if part in key:
            described = server.client().head_object(Bucket=bucket, Key=key)["Metadata"]
            body = server.read(bucket, key)
            server.client().put_object(Bucket=bucket, Key=key, Body=body[: len(body) // 2], Metadata=described)


def put_real_pieces(stage: Stage, world: World, name: str, **places: tuple[int, ...]) -> None:
    """Put pieces of a segment onto stores as the shipper does, of a content of no matter."""
    data, identifier = bytes(SEGMENT_BYTES), int(world.system_identifier)
    for store, offsets in places.items():
        for piece in cut(name, data, offsets, system_identifier=identifier, wal_segment_size=SEGMENT_BYTES):
            content = data[piece.from_offset : piece.to_offset]
            encoded = Encoder(Codec.GZIP).encode(content)
            stage.server(store).client().put_object(
                Bucket=stage.bucket(store),
                Key=f"{world.prefix}/main/{identifier}/tail/{name[:8]}/{name}/"
                f"{piece.from_offset:08X}-{piece.to_offset:08X}.gz",
                Body=gzip.compress(content),
                Metadata=piece_to_metadata(piece, encoded.encoding),
            )


def test_only_an_honest_stop_is_one() -> None:
    """It names the file with a store that has a fault, is no end of the archive, and the plan counted on the piece."""
    name, key = "000000020000000000000027", "main/1/tail/00000002/000000020000000000000027/00000000-00100000.gz"
    error = (
        "wal-pipeline archive-get: ERROR: '00000003.history' could not be had from any store:\n"
        "b2: no answer\nHINT: Wait.\n"
        f"wal-pipeline archive-get: ERROR: '{name}' could not be had from any store:\n"
        f"r2: object '{key}' has SHA-256 00, expected 11\nHINT: Recovery stops here.\n"
    )
    fatal = f'FATAL:  could not restore file "{name}" from archive: child process exited with exit code 200\n'
    stop = read_stop(error + fatal)
    assert stop == Stop(name, 200, ("r2",), (key,))
    assert list(faults_of_stop(stop, Faults("r2"), left_out="")) == []
    assert list(faults_of_stop(stop, Faults("b2"), left_out="")) == [
        f"no error names '{name}' with a store that has a fault (b2)"
    ]
    assert list(faults_of_stop(stop, Faults("r2"), left_out=f"r2: object '{key}' is damaged")) == [
        f"the plan had left '{key}' out, and nothing needed it: a restore that is planned again stops again"
    ]
    assert list(faults_of_stop(Stop(name, 1, ("r2",), ()), Faults("r2"), left_out="")) == [
        "exit code 1 is the end of the archive for PostgreSQL, expected more than 125",
        "no error names the piece that cannot be used",
    ]
    assert list(faults_of_stop(Stop(name, 200, ("b2",), ()), Faults("r2", frozenset({"b2"})), left_out="")) == []
    silent = read_stop(fatal)
    assert silent is not None
    assert list(faults_of_stop(silent, Faults(cut_off=frozenset({"b2"})), left_out="")) == [
        f"no error names '{name}' with a store that has a fault (b2)"
    ]
    assert read_stop("LOG:  database system is shut down\n") is None


def test_a_stop_is_not_excused_where_another_store_could_serve(stage: Stage) -> None:
    """Whole segments, also of a store that lies about pieces only, and pieces that lead as far as both stores' do."""
    quiet = replace(schedule_of(12), seconds=1, events=(), linger_seconds=3)
    with make_world(stage, quiet) as world:
        world.load.start()
        name = world.cluster.switch_wal()
        world.load.stop()
        drain(world)
        beyond = f"{name[:16]}{int(name[16:], 16) + 9:08X}"
        b2_only = Faults("r2", frozenset({"b2"}))
        assert could_be_served(world, name, Faults("r2")) == f"r2 has '{name}' as a whole"
        assert could_be_served(world, name, Faults(cut_off=frozenset({"r2"}))) == f"b2 has '{name}' as a whole"
        assert could_be_served(world, name, Faults(cut_off=frozenset({"r2", "b2"}))) is None
        assert could_be_served(world, beyond, Faults(cut_off=frozenset({"r2"}))) is None
        put_pieces_of(stage, world.prefix, beyond, r2=(0, 100, 200), b2=(0, 100))
        assert could_be_served(world, beyond, Faults("r2")) is None
        assert could_be_served(world, beyond, b2_only) is None
        assert could_be_served(world, beyond, Faults("b2")) == (
            f"good pieces on r2 are the first 200 bytes of '{beyond}', and nobody has more"
        )


def put_pieces_of(stage: Stage, prefix: str, name: str, **places: tuple[int, ...]) -> None:
    """Put pieces of a segment onto stores, whose content is of no matter: bytes from each place to the next."""
    for store, offsets in places.items():
        for begin, end in pairwise(offsets):
            stage.server(store).client().put_object(
                Bucket=stage.bucket(store),
                Key=f"{prefix}/main/1/tail/{name[:8]}/{name}/{begin:08X}-{end:08X}.gz",
                Body=gzip.compress(bytes(end - begin)),
                Metadata={"piece-content": f"sha256=x before-sha256=to-{begin} through-sha256=to-{end}"},
            )


def test_a_plan_counts_on_a_store_that_begins_to_lie_later() -> None:
    """One that lies already is left out of it."""
    lying = replace(schedule_of(12), lying_pieces="r2", cut_off_after_loss="b2")
    assert counted_stores(replace(lying, lies_from_plan=True)) == ("b2",)
    assert counted_stores(replace(lying, lies_from_plan=False)) == ("r2", "b2")


def test_the_faults_after_the_loss_are_of_different_stores() -> None:
    """A damaged whole segment is drawn only where it is asked for, and changes nothing else."""
    schedules = [schedule_of(seed) for seed in range(1, 200)]
    assert {schedule.lies_from_plan for schedule in schedules} == {True, False}
    assert {schedule.cut_off_after_loss for schedule in schedules} == {"r2", "b2", None}
    assert not any(one.cut_off_after_loss == one.lying_pieces for one in schedules if one.lying_pieces is not None)
    assert not any(schedule.damaged_whole for schedule in schedules)
    damaged = [
        draw(seed, seconds=2, max_latency_seconds=1, full_disks=False, damaged_wholes=True) for seed in range(1, 200)
    ]
    assert {schedule.damaged_whole for schedule in damaged} == {"r2", "b2"}
    assert [replace(schedule, damaged_whole=None) for schedule in damaged] == schedules


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
