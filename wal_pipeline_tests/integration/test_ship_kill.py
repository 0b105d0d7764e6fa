"""Tests a shipper that is killed at any request to a store, and the shipper after it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.format.piece import EMPTY_SHA256
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.killed_archiver import Moment
from wal_pipeline_tests.support.killed_shipper import ShipPlace, die_while_shipping

pytestmark = pytest.mark.integration
MOMENTS = [
    *(Moment(step, when, 3) for step in ("put r2", "open r2") for when in ("before", "after")),
    # The seventeenth piece is a merged one, or stands beside it; it is proved before sixteen are deleted.
    *(Moment("put b2", when, nth) for when in ("before", "after") for nth in (17, 18)),
    *(Moment("open b2", when, 18) for when in ("before", "after")),
    *(Moment("delete b2", "before", nth) for nth in (1, 8, 16)),
    Moment("put r2", "before", 33),
]


@pytest.fixture(scope="module")
def cluster(postgres18: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running server with segments of 1 MB."""
    made = PostgresCluster(postgres18, settings={"wal_keep_size": "1GB"}).initdb(wal_segment_size_mb=1).start()
    yield made
    made.remove()


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_kill_at_any_step_leaves_no_hole(moment: Moment, cluster: PostgresCluster, tmp_path: Path) -> None:
    """At the kill each store has all that it was known to have; the next shipper goes on, and few pieces are left."""
    cluster.psql("SELECT pg_switch_wal() \\gset")
    start = Lsn.parse(cluster.value("SELECT pg_current_wal_flush_lsn()"))
    place = ShipPlace(tmp_path, cluster.install, cluster.pgdata, cluster.port)
    (tmp_path / "shipped").write_text(str(start))
    assert die_while_shipping(place, moment) == -signal.SIGKILL
    shipped = place.shipped
    scene = place.scene()
    for name in scene.stores:
        assert shipped == start or (scene.tail_end(name) or 0) >= shipped

    scene.write()
    for store in scene.stores.values():
        store.calls.clear()
    with scene.shipping() as running:
        flushed = scene.flushed  # the server writes by itself too, and a piece may end later
        running.wait_until(lambda: all((scene.tail_end(name) or 0) >= flushed for name in scene.stores))

    segment = max(scene.pieces("r2"))
    data = (cluster.pgdata / "pg_wal" / segment).read_bytes()
    for store in scene.stores.values():
        chain = scene.chain(store.name, require_file_name(segment))
        assert (chain[0].from_offset, chain[0].before_sha256) == (0, EMPTY_SHA256)
        assert flushed <= chain[-1].end_lsn <= scene.flushed
        assert sum(piece.size_bytes for piece in chain) == chain[-1].end_lsn % len(data)
        stored_twice = [key for call, key in store.calls if call == "put"]
        assert len(set(stored_twice)) == len(stored_twice)
