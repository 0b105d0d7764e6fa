"""Tests that a server that was restored to a time goes on archiving, and can be restored again."""

import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline_tests.support.beside_scene import beside

pytestmark = pytest.mark.integration


@pytest.mark.left_out
def test_the_history_of_a_server_restored_to_a_time_is_not_refused(postgres_version: PostgresInstall) -> None:
    """PostgreSQL ends its line with a blank one: the file is whole, is archived, and leads the next two restores."""
    with beside(postgres_version) as scene:
        scene.back_up()
        scene.cluster.psql("INSERT INTO t VALUES ('kept')")
        first = scene.cluster.value("SELECT clock_timestamp()")
        scene.cluster.psql("INSERT INTO t VALUES ('lost')")
        scene.archive()
        scene.cluster.stop()
        with scene.started("second", f"--to-time={first}", "--archiving") as second:
            second.value("INSERT INTO t VALUES ('second')")
            moment = second.value("SELECT clock_timestamp()")
            second.value("INSERT INTO t VALUES ('lost again')")
            second.value("SELECT pg_switch_wal()")
            scene.wait_archived(second)
        archived = scene.run("archive")
        assert archived.returncode == 0, archived.stdout + archived.stderr
        assert (scene.folder / "spool/00000002.history").exists() is False
        with scene.started("third", f"--to-time={moment}", "--archiving") as third:
            assert third.value("SELECT string_agg(n, ',' ORDER BY n) FROM t") == "kept,second"
            third.value("INSERT INTO t VALUES ('third')")
            third.value("SELECT pg_switch_wal()")
            scene.wait_archived(third)
        scene.must("archive")
        with scene.started("fourth", "--no-archiving") as fourth:
            assert fourth.value("SELECT string_agg(n, ',' ORDER BY n) FROM t") == "kept,second,third"
