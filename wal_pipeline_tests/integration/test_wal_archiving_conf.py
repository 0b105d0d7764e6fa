"""Tests that the configuration fragment under deploy/ works, on PostgreSQL 18 and 15."""

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.commands.setup.setup import look_at_archiving
from wal_pipeline.postgres.server import PostgresServer

FRAGMENT = Path(__file__).parents[2] / "deploy" / "postgresql.conf.d" / "wal-archiving.conf"


@pytest.mark.integration
def test_a_server_with_the_fragment_archives(
    postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster], postgres_folder: Path
) -> None:
    """A server with the fragment and its own folder archives, and setup finds nothing to change."""
    text = FRAGMENT.read_text()
    assert "= '/var/spool/wal-pipeline'" in text
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1)
    with (cluster.pgdata / "postgresql.conf").open("a") as configuration:
        configuration.write(text.replace("/var/spool/wal-pipeline", str(postgres_folder)))
    cluster.start()
    server = PostgresServer(cluster.conninfo)
    assert [finding.status for finding in look_at_archiving(server, WantedArchiving(postgres_folder)).findings] == [
        "ok"
    ] * 8
    name = server.switch_wal().file.name
    cluster.process.wait_until((postgres_folder / name).exists)
