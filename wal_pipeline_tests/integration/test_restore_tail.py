"""Tests that a restore brings back the commits of the open segment from its pieces, and nothing that is not there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at
from wal_pipeline_tests.support.pieces import cut, even_places, put_pieces
from wal_pipeline_tests.support.restore_history import History, Moment, restored

pytestmark = pytest.mark.integration
SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Shipped:
    """A history that is lost, whose last commits lie in the open segment, shipped up to ``end``."""

    history: History
    whole: Moment
    middle: str
    all: Moment
    end: Lsn


def ship(history: History, size: int = SIZE) -> Lsn:
    """Ship the open segment up to the flushed LSN to both stores, r2 in more pieces than b2; return its end."""
    flushed, timeline, at = history.cluster.psql(
        "SELECT pg_current_wal_flush_lsn(), timeline_id, clock_timestamp() FROM pg_control_checkpoint()"
    ).split("|")
    end = Lsn.parse(flushed)
    name = segment_at(int(timeline), end, size)
    data = (history.cluster.pgdata / "pg_wal" / name.name).read_bytes()
    offset = end % size
    identifier = int(history.cluster.system_identifier)
    for store, count in (("r2", 9), ("b2", 4)):
        pieces = cut(
            name.name,
            data,
            even_places(offset, count),
            system_identifier=identifier,
            wal_segment_size=size,
            server_major=history.install.version,
            commit_times=CommitTimes.UNKNOWN,
        )
        pieces = [replace(piece, flushed_at=datetime.fromisoformat(at)) for piece in pieces]
        pipeline = history.pipeline
        put_pieces(ClusterStore(pipeline.stores[store], pipeline.layout(identifier)), pieces, data)
    return end


@pytest.fixture(scope="module")
def shipped(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Shipped]:
    """A cluster with a base backup, whole segments, and commits in the open segment, which was shipped."""
    with History.begin(postgres_version, s3_pair) as history:
        history.back_up()
        history.mark("archived")
        whole = history.end()
        history.cluster.psql("CHECKPOINT")  # full pages in this segment, so that what follows fits into it
        history.cluster.psql("INSERT INTO marks VALUES (-1)")
        middle = history.cluster.value("SELECT pg_current_wal_lsn()")
        history.cluster.psql("INSERT INTO marks VALUES (-2)")
        found = history.cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM pgbench_history)")
        marks, transactions = (int(one) for one in found.split("|"))
        end = ship(history)
        history.lose()
        yield Shipped(history, whole, middle, Moment("", marks, transactions), end)


@pytest.mark.parametrize("store", ["any", "r2", "b2"])
def test_the_commits_of_the_open_segment_are_back(shipped: Shipped, store: str) -> None:
    """Each store alone, and both together, bring back all that was shipped."""
    with restored(shipped.history, f"--store={store}") as found:
        assert found.moment() == (shipped.all.marks, shipped.all.transactions)
        assert found.balances_agree()
        assert found.moment()[0] == shipped.whole.marks + 2
