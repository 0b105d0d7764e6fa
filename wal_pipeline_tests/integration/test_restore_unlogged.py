"""A base backup that was taken while an unlogged index was built is restored: PostgreSQL's own ends with an error."""

from collections.abc import Iterator
from threading import Thread

import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline_tests.support.restore_history import History, restored

pytestmark = pytest.mark.integration
WAITS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def history(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[History]:
    """A cluster with an unlogged table, and a function that waits while somebody holds a lock."""
    with History.begin(postgres_version, s3_pair) as made:
        made.cluster.psql(
            "CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 100) AS i;"
            "CREATE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
            "$$BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN i; END$$"
        )
        yield made


def test_an_index_that_was_being_built_does_not_end_the_restore(history: History) -> None:
    """The server ends at the end of its recovery, is started again, and opens with all that was committed."""
    cluster = history.cluster
    builder = Thread(target=cluster.psql, args=["CREATE INDEX slowly ON fleeting (slow(i))"])
    with cluster.connect() as blocker:
        blocker.execute("SELECT pg_advisory_lock(1)")
        builder.start()
        cluster.process.wait_until(lambda: cluster.value(WAITS) == "1", timeout_seconds=30)
        history.back_up()
    builder.join()
    history.mark("after the base backup")
    end = history.end()
    with restored(history) as found:
        assert found.moment() == (end.marks, end.transactions)
        log = found.cluster.pgdata.parent.glob("*.log")
        assert any('could not create file "base/5/' in one.read_text() for one in log)
        assert found.cluster.value("INSERT INTO fleeting VALUES (7) RETURNING slow(i)") == "7"
        assert found.cluster.value("SELECT count(*) FROM fleeting") == "1"
