"""A data directory of which the server cannot read all, so that every base backup fails."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, postgres_user
from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.commands.setup.setup import look_at_archiving
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.pg_basebackup import BaseBackupCommand, BaseBackupRun
from wal_pipeline.postgres.server import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def plain_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this test open what their user may open; others may read everything, to find our programs."""
    monkeypatch.setattr("testbed.postgres.postgres_user", lambda: replace(postgres_user(), reads_everything=False))


def told(server: PostgresServer, spool: Path) -> list[str]:
    """Return what is said of the data directory, each with the lines that mend it."""
    findings = look_at_archiving(server, WantedArchiving(spool)).findings
    return [f"{one.status} {one.message} | {one.lines}" for one in findings if one.name == "data directory"]


@pytest.mark.usefixtures("plain_user")
def test_a_lost_and_found_of_roots_is_seen_before_the_first_base_backup(
    postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster], postgres_folder: Path
) -> None:
    """The line that mends it mends it; and pg_basebackup's own error has a way out too."""
    if os.geteuid() != 0:
        pytest.skip("only root makes a folder that the server cannot open")
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1).start()
    server, pgdata = PostgresServer(cluster.conninfo), cluster.pgdata
    assert told(server, postgres_folder) == []
    (pgdata / "lost+found").mkdir(mode=0o700)
    assert told(server, postgres_folder) == [
        f"problem '{pgdata}/lost+found' cannot be opened by the server: the data directory is the top of a file system,"
        f" and every base backup fails | ('sudo chown --reference={pgdata} {pgdata}/lost+found',)"
    ]
    command = BaseBackupCommand(postgres_version.program("pg_basebackup"), cluster.conninfo, "test")
    with BaseBackupRun(command, os.environ) as run, pytest.raises(BaseBackupError) as caught:
        run.tar.read()
        run.wait()
    assert 'could not open directory "./lost+found": Permission denied' in caught.value.message
    assert caught.value.hint is not None
    assert "A 'lost+found' says that the data directory is a mount point" in caught.value.hint
    os.chown(pgdata / "lost+found", pgdata.stat().st_uid, pgdata.stat().st_gid)
    assert told(server, postgres_folder) == []


def test_a_role_that_may_not_look_is_told_nothing(
    postgres18: PostgresInstall, make_cluster: Callable[..., PostgresCluster]
) -> None:
    """And no statement fails because of it; a file of that name is no folder."""
    cluster = make_cluster(postgres18, wal_segment_size_mb=1).start()
    (cluster.pgdata / "lost+found").touch()
    assert PostgresServer(cluster.conninfo).has_closed_folder("lost+found") is False
    cluster.psql("CREATE ROLE monitor LOGIN")
    assert PostgresServer(f"{cluster.conninfo} user=monitor").has_closed_folder("lost+found") is None
