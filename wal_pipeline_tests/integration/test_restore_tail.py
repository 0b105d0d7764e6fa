"""Tests that a restore brings back the commits of the open segment from its pieces, and nothing that is not there."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import pyrage
import pytest

from testbed.postgres import start_restored
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.drill.choice import choose_target
from wal_pipeline.commands.drill.drill import Drill
from wal_pipeline.commands.drill.result import DrillOptions
from wal_pipeline.stores.base import Body, Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.restore_history import History, Moment, restored, run_restore, wait_until
from wal_pipeline_tests.support.shipped_end import ship

pytestmark = pytest.mark.integration
SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Shipped:
    """A history that is lost, whose last commits lie in the open segment, shipped up to ``end``."""

    history: History
    whole: Moment
    targets: dict[str, str]
    all: Moment
    end: Lsn
    system_identifier: int


def commit_in_the_open_segment(history: History) -> dict[str, str]:
    """Commit three marks in the open segment; return targets between the second and the third."""
    history.cluster.psql("CHECKPOINT")  # full pages in this segment, so that what follows fits into it
    for mark in (-1, -2):
        history.cluster.psql(f"INSERT INTO marks VALUES ({mark})")  # noqa: S608
    lsn, at = history.cluster.psql("SELECT pg_current_wal_lsn(), clock_timestamp()").split("|")
    history.cluster.psql("SELECT pg_create_restore_point('here')")
    history.cluster.psql("INSERT INTO marks VALUES (-3)")
    last_at = history.cluster.value("SELECT pg_xact_commit_timestamp(xmin) FROM marks WHERE n = -3")
    return {
        "lsn": f"--to-lsn={lsn}",
        "time": f"--to-time={at}",
        "name": "--to-name=here",
        "last": f"--to-time={last_at}",
    }


def counted(history: History) -> Moment:
    """Return the marks and transactions by now."""
    found = history.cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM pgbench_history)")
    marks, transactions = (int(one) for one in found.split("|"))
    return Moment("", marks, transactions)


@pytest.fixture(scope="module")
def shipped(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Shipped]:
    """A cluster with a base backup, whole segments, and commits in the open segment, which was shipped."""
    with History.begin(postgres_version, s3_pair) as history:
        history.back_up()
        history.mark("archived")
        whole = history.end()
        targets = commit_in_the_open_segment(history)
        everything = counted(history)
        end, identifier = ship(history), int(history.cluster.system_identifier)
        history.lose()
        yield Shipped(history, whole, targets, everything, end, identifier)


@pytest.mark.parametrize("store", ["any", "r2", "b2"])
def test_the_commits_of_the_open_segment_are_back(shipped: Shipped, store: str) -> None:
    """Each store alone, and both together, bring back all that was shipped, and the plan says so."""
    with restored(shipped.history, f"--store={store}") as found:
        assert found.moment() == (shipped.all.marks, shipped.all.transactions)
        assert found.balances_agree()
        assert found.moment()[0] == shipped.whole.marks + 3
        assert found.answer["commit_at_least"] == found.answer["recovery"]["last_commit_at"]
        assert Lsn.parse(found.answer["recovery"]["replayed_lsn"]) <= shipped.end


@pytest.mark.parametrize(("target", "missing"), [("lsn", 1), ("time", 1), ("name", 1), ("last", 0)])
def test_a_target_within_the_open_segment_is_reached(shipped: Shipped, target: str, missing: int) -> None:
    """PostgreSQL stops there by itself, or at the last commit, where the plan ends the recovery."""
    with restored(shipped.history, shipped.targets[target]) as found:
        assert found.moment()[0] == shipped.all.marks - missing


def test_a_drill_ends_at_the_tail(shipped: Shipped) -> None:
    """Its server reports the last commit that the pieces say; every other drill of this store passes too."""
    store = shipped.history.pipeline.stores["r2"]
    place = ClusterStore(store, shipped.history.pipeline.layout(shipped.system_identifier))
    for seed in range(100):
        target = choose_target(place, (), Random(seed))  # noqa: S311 - a drill's choice
        if target.choice.next_file is None:
            break
    assert [tail.segment for tail in target.tails] == [target.choice.last]
    bindir, owner = shipped.history.install.bin_folder, postgres_user().name
    options = DrillOptions(folder=owned_folder("drill") / "scratch", owner=owner, bindir=bindir)
    result = Drill(
        store=store,
        layout=place.layout,
        identities=(),
        options=options,
        clock=lambda: datetime.now(UTC),
        random=Random(seed),  # noqa: S311 - a drill's choice
    ).run()
    assert result.error is None
    assert result.reached_commit_at == result.predicted_commit_at == target.tails[-1].last_commit_at


def test_more_that_is_shipped_after_the_plan_is_not_replayed_past_the_last_commit(
    postgres_version: PostgresInstall, s3_pair: S3Pair
) -> None:
    """The time of the last commit is the target: what follows is cut off, also where the segment is archived whole."""
    with History.begin(postgres_version, s3_pair) as history:
        history.back_up()
        history.end()
        target = commit_in_the_open_segment(history)["last"]
        before = counted(history)
        ship(history)
        pgdata = owned_folder("restored") / "pgdata"
        done = run_restore(history, "--pgdata", str(pgdata), "--no-archiving", target)
        assert done.returncode == 0, done.stderr
        history.cluster.psql("INSERT INTO marks VALUES (-4)")
        history.end()
        cluster = start_restored(history.install, pgdata, settings={}, env=history.environment)
        try:
            cluster.wait_promoted()
            assert int(cluster.value("SELECT count(*) FROM marks")) == before.marks
        finally:
            cluster.remove()


@pytest.mark.left_out
@pytest.mark.parametrize("size_mb", [16, 64])
def test_larger_segments_and_encrypted_pieces(postgres_version: PostgresInstall, s3_pair: S3Pair, size_mb: int) -> None:
    """All commits are back; without the identity nothing is restored, and nothing is lost without a word."""
    identity = pyrage.x25519.Identity.generate()
    encoder = Encoder(Codec.ZSTD, recipients=[str(identity.to_public())])
    with History.begin(postgres_version, s3_pair, wal_segment_size_mb=size_mb) as history:
        history.back_up()
        history.end()
        commit_in_the_open_segment(history)
        everything = counted(history)
        ship(history, size_mb << 20, encoder)
        history.lose()
        refused = run_restore(history, "--pgdata=/nowhere/pgdata", "--plan")
        assert refused.returncode == 1
        assert "there is no identity" in refused.stderr
        key = history.folder / "identity"
        key.write_text(str(identity))
        key.chmod(0o644)
        history.environment["WAL_PIPELINE_AGE_IDENTITY_FILE"] = str(key)
        with restored(history) as found:
            assert found.moment() == (everything.marks, everything.transactions)


def test_a_promotion_in_mid_segment(postgres_version: PostgresInstall, s3_pair: S3Pair) -> None:
    """The new timeline's first segment repeats the old one's: its own pieces lead on."""
    with History.begin(postgres_version, s3_pair) as history:
        history.back_up()
        history.end()
        commit_in_the_open_segment(history)
        ship(history)
        history.cluster.stop()
        (history.cluster.pgdata / "standby.signal").touch()
        history.cluster.start()
        history.cluster.promote()
        history.cluster.psql("CHECKPOINT")
        history.cluster.psql("INSERT INTO marks VALUES (-5)")
        wait_until((history.folder / "spool" / "00000002.history").exists)
        history.archive()
        everything = counted(history)
        ship(history)
        history.lose()
        with restored(history) as found:
            assert found.moment() == (everything.marks, everything.transactions)
            assert found.answer["recovery"]["timeline"] == 3
        with restored(history, "--timeline=1") as found:
            assert found.moment() == (everything.marks - 1, everything.transactions)


def test_a_whole_segment_that_was_half_stored_does_not_hide_its_pieces(
    postgres_version: PostgresInstall, s3_pair: S3Pair
) -> None:
    """The host is lost, b2 has half of the last segment, r2 its pieces: every acknowledged commit is back."""
    with History.begin(postgres_version, s3_pair) as history:
        history.back_up()
        history.end()
        commit_in_the_open_segment(history)
        ship(history)
        everything = history.end()  # no commit is added: the segment is finished, and archived to both stores
        places = history.pipeline.stores
        layout = history.pipeline.layout(int(history.cluster.system_identifier))
        key = max(item.key for item in places["b2"].list(layout.wal_root) if layout.parse_wal_key(item.key))
        half_store(places["b2"], key)
        places["r2"].delete(key)
        for item in places["b2"].list(layout.tail_root):
            places["b2"].delete(item.key)
        history.lose()
        with restored(history) as found:
            assert found.moment() == (everything.marks, everything.transactions)
            assert found.balances_agree()
            assert any(f"b2: object '{key}' has " in note for note in found.answer["notes"])
        with restored(history, "--store=b2") as found:
            assert found.moment()[0] == everything.marks - 3


def half_store(store: Store, key: str) -> None:
    """Leave half of an object's bytes, with the metadata of all of them."""
    with store.open_described(key) as (described, stream):
        stored = stream.read()
    store.delete(key)
    store.put_if_absent(key, Body.of(stored[: len(stored) // 2]), described.metadata)
