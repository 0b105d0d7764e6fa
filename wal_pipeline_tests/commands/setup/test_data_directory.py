"""A data directory of which the server cannot read all, so that every base backup fails."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, postgres_user
from wal_pipeline.commands.clone.folder import CloneFolder, clone_of
from wal_pipeline.commands.setup.data_directory import judge_clone
from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.commands.setup.setup import apply_setup, look_at_archiving
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.pg_basebackup import BaseBackupCommand, BaseBackupRun
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline_tests.support.server_facts import GOOD

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


def test_a_clone_gets_no_archiving(shared_cluster18: PostgresCluster, tmp_path: Path) -> None:
    """It is named with the way out; nothing is changed, not even a spool is made, and nothing else is said."""
    with CloneFolder(tmp_path, "monday").made():
        pgdata = tmp_path / "monday" / "1" / "pgdata"
        wanted = WantedArchiving(tmp_path / "spool", pgdata=pgdata, clone_of=clone_of)
        report = apply_setup(PostgresServer(shared_cluster18.conninfo), wanted)
    assert (report.ok, report.applied, report.made_spool) == (False, (), False)
    assert not (tmp_path / "spool").exists()
    (finding,) = report.after.all_findings
    assert finding.message == (
        f"'{pgdata}' is the clone 'monday', which lasts for a while and has no archive of its own: it would archive "
        "into that of its original"
    )
    assert finding.lines[0] == "use the settings of the original: PGDATA and WAL_PIPELINE_CONNINFO lead to a clone"


def test_a_clone_is_known_by_the_servers_folder_too(tmp_path: Path) -> None:
    """The settings may name none. A folder that nobody may look at is no ground for a claim."""
    (tmp_path / "monday" / "1" / "pgdata").mkdir(parents=True)
    facts = replace(GOOD, data_directory=str(tmp_path / "monday" / "1" / "pgdata"))
    wanted = WantedArchiving(tmp_path, clone_of=clone_of)
    assert judge_clone(facts, wanted) is None
    (tmp_path / "monday" / ".wal-pipeline-clone").touch()
    assert judge_clone(facts, wanted) is not None

    def refused(_folder: Path) -> str | None:
        raise PermissionError

    assert judge_clone(facts, replace(wanted, clone_of=refused)) is None
