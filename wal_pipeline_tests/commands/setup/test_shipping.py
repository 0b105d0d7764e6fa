"""Setup and check say whether the open segment can be shipped, on PostgreSQL 18 and 15."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.setup.shipping import ShippingLook
from wal_pipeline.errors import PostgresError
from wal_pipeline.host.file_owner import name_of_user
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.slots import Slots
from wal_pipeline_tests.support.nobody import as_nobody

pytestmark = pytest.mark.integration
SLOT = "wal_pipeline_main"


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster."""
    running = PostgresCluster(postgres_version).initdb(wal_segment_size_mb=1).start()
    yield running
    running.remove()


def look(
    cluster: PostgresCluster, *, slot: str | None = None, user: str = "postgres", pgdata: Path | None = None
) -> dict[str, Finding]:
    """Return the findings by name."""
    server = PostgresServer(cluster.conninfo.replace("user=postgres", f"user={user}"))
    looked = ShippingLook(server, pgdata, slot, lambda _: cluster.install.program("pg_receivewal"), Level.WARNING)
    return {finding.name: finding for finding in looked.findings(server.facts())}


def test_the_host_source_says_as_which_user_it_reads(cluster: PostgresCluster) -> None:
    """Where it works, nothing is to be done."""
    found = look(cluster)["open segment"]
    assert found.status is Level.OK
    assert found.message.startswith(f"'{cluster.pgdata}/pg_wal' can be read by user '{name_of_user(os.geteuid())}'")


def test_another_user_is_named_with_the_way_out(cluster: PostgresCluster) -> None:
    """The one who cannot read, the owner, and what to do."""
    if os.geteuid() != 0 or cluster.pgdata.owner() == "nobody":
        pytest.skip("another user needs root")
    cluster.folder.chmod(0o755)

    def tell() -> None:
        found = look(cluster)["open segment"]
        raise AssertionError(f"{found.status.value}: {found.message} | {' '.join(found.mending)}")

    said = as_nobody(tell)
    assert said.startswith(f"warning: it cannot be shipped: '{cluster.pgdata}/pg_wal' cannot be read by user 'nobody'")
    assert f"Run 'wal-pipeline ship' as user '{cluster.pgdata.owner()}'" in said


def test_a_data_directory_that_is_not_here_is_told(cluster: PostgresCluster) -> None:
    """The hint names both ways: the setting, and the other source."""
    found = look(cluster, pgdata=Path("/nowhere"))["open segment"]
    assert (found.status, found.message) == (
        Level.WARNING,
        "it cannot be shipped: the data directory '/nowhere' is not on this host",
    )
    assert "pg_receivewal" in found.mending[0]


def test_the_receiver_needs_a_slot_and_a_limit(cluster: PostgresCluster) -> None:
    """Without a limit a receiver that is away fills the server's disk: a line to type is proposed."""
    found = look(cluster, slot=SLOT)
    assert found["pg_receivewal"].status is Level.OK
    assert found["replication slot"].message == f"the server has no slot '{SLOT}'"
    assert "wal-pipeline slot make" in found["replication slot"].mending[0]
    limit = found["max_slot_wal_keep_size"]
    assert limit.status is Level.WARNING
    assert limit.mending[0] == "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';"
    assert limit.changes == ()  # a person decides: --apply does not set it
    Slots(PostgresServer(cluster.conninfo)).make(SLOT)
    cluster.psql("ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'")
    cluster.psql("SELECT pg_reload_conf()")
    cluster.process.wait_until(
        lambda: look(cluster, slot=SLOT)["max_slot_wal_keep_size"].status is Level.OK, timeout_seconds=30
    )
    assert look(cluster, slot=SLOT)["replication slot"].message.startswith(f"'{SLOT}' is reserved, and holds back")
    cluster.psql(f"SELECT pg_drop_replication_slot('{SLOT}')")


def test_the_receivers_role_needs_two_rights(cluster: PostgresCluster) -> None:
    """REPLICATION to receive, pg_read_all_stats to see how far it is."""
    cluster.psql("CREATE ROLE weak LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog TO weak")
    lacks = look(cluster, slot=SLOT, user="weak")["pg_receivewal"]
    assert (lacks.status, lacks.message) == (Level.WARNING, "role 'weak' lacks REPLICATION")
    cluster.psql("ALTER ROLE weak REPLICATION")
    blind = look(cluster, slot=SLOT, user="weak")["pg_receivewal"]
    assert blind.message == "role 'weak' may not see how far pg_receivewal is"
    assert blind.mending == ('GRANT pg_read_all_stats TO "weak";',)
    cluster.psql("DROP OWNED BY weak; DROP ROLE weak")


def test_a_program_that_is_missing_is_told(cluster: PostgresCluster) -> None:
    """With the folders that were looked at."""

    def find(_: int) -> Path:
        raise PostgresError("no 'pg_receivewal' of PostgreSQL 18 or newer found", hint="Install it.")

    server = PostgresServer(cluster.conninfo)
    found = ShippingLook(server, None, SLOT, find, Level.PROBLEM).findings(server.facts())[0]
    assert (found.status, found.mending) == (Level.PROBLEM, ("Install it.",))
