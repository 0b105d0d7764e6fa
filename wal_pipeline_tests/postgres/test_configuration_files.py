"""Which files of a server's configuration are kept, and what is said of those that cannot be."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.archive.format.configuration import KeptConfiguration
from wal_pipeline.postgres import configuration_files
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.server import PostgresServer

pytestmark = pytest.mark.integration
MakeCluster = Callable[..., PostgresCluster]


@pytest.fixture
def etc() -> Iterator[Path]:
    """A folder outside the data directory."""
    folder = owned_folder("etc")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def kept(cluster: PostgresCluster, role: str = "") -> KeptConfiguration:
    """Return what is kept, as a role of the server that we are."""
    conninfo = f"{cluster.conninfo} user={role}" if role else cluster.conninfo
    found = PostgresServer(conninfo).configuration()
    assert found is not None
    return found


def test_a_usual_server_has_nothing_outside(postgres_version: PostgresInstall, make_cluster: MakeCluster) -> None:
    """Then a base backup has no object for it."""
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1).start()
    assert kept(cluster).is_empty
    assert BackupServer(cluster.conninfo).outside_configuration() == (None, ())


def test_files_that_name_each_other_end(postgres18: PostgresInstall, make_cluster: MakeCluster, etc: Path) -> None:
    """A circle, a file that is missing, one that is too large, and one with bytes that are no text."""
    cluster = make_cluster(postgres18, wal_segment_size_mb=1).start()
    (etc / "a.conf").write_bytes(b"include 'b.conf'\ninclude_if_exists 'none.conf'\n# \xff\n")
    (etc / "b.conf").write_text("include 'a.conf'\ninclude 'gone.conf'\ninclude 'large.conf'\ninclude_dir 'no.d'\n")
    (etc / "large.conf").write_bytes(b"#" * ((1 << 20) + 1))
    with (cluster.pgdata / "postgresql.conf").open("a") as conf:  # read by nobody before a restart
        conf.write(f"include '{etc}/a.conf'\n")
    found = kept(cluster)
    assert found.files == {str(etc / name): (etc / name).read_bytes() for name in ("a.conf", "b.conf")}
    assert found.missing.keys() == {f"{etc}/gone.conf", f"{etc}/large.conf", f"{etc}/no.d"}
    assert found.missing[f"{etc}/large.conf"] == f"'{etc}/large.conf' has more than 1048576 bytes"


def test_a_role_without_rights_reads_on_the_host(
    postgres_version: PostgresInstall, make_cluster: MakeCluster, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rights that docs/security.md gives; where the data directory is not here, each file is told."""
    (etc / "ident.conf").write_text("# mine\n")
    settings = {"ident_file": f"{etc}/ident.conf"}
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1, settings=settings).start()
    cluster.psql("CREATE ROLE backups LOGIN REPLICATION; GRANT pg_monitor TO backups")
    cluster.psql("CREATE ROLE blind LOGIN REPLICATION")
    assert kept(cluster, "backups").files == {f"{etc}/ident.conf": b"# mine\n"}
    assert PostgresServer(f"{cluster.conninfo} user=blind").configuration() is None
    monkeypatch.setattr(configuration_files, "_is_here", lambda _pgdata, _identifier: False)
    reason = kept(cluster, "backups").missing[f"{etc}/ident.conf"]
    assert reason.startswith(f"'{etc}/ident.conf' cannot be read: permission denied for function pg_read_binary_file")


def test_what_is_not_kept_is_a_warning_and_ends_no_base_backup(
    postgres18: PostgresInstall, make_cluster: MakeCluster, etc: Path
) -> None:
    """Each file by its name; what the role may not see; and a server that does not answer any more."""
    cluster = make_cluster(postgres18, wal_segment_size_mb=1).start()
    assert BackupServer(cluster.conninfo).outside_configuration() == (None, ())
    (etc / "a.conf").write_text("include 'gone.conf'\n")
    with (cluster.pgdata / "postgresql.conf").open("a") as conf:
        conf.write(f"include '{etc}/a.conf'\n")
    found, warnings = BackupServer(cluster.conninfo).outside_configuration()
    assert found is not None
    assert found.files == {f"{etc}/a.conf": b"include 'gone.conf'\n"}
    [warning] = warnings
    assert warning.startswith(f"a configuration file is not kept: '{etc}/gone.conf' cannot be read: ")
    cluster.psql("CREATE ROLE blind LOGIN REPLICATION")
    assert BackupServer(f"{cluster.conninfo} user=blind").outside_configuration() == (
        None,
        (
            "whether configuration files are outside the data directory is not known, and none is kept: "
            "grant pg_read_all_settings to the role",
        ),
    )
    cluster.stop()
    found, [warning] = BackupServer(cluster.conninfo, connect_timeout_seconds=2).outside_configuration()
    assert found is None
    assert warning.startswith("the configuration outside the data directory is not kept: cannot connect")
