"""Which files of a server's configuration are kept, and what is said of those that cannot be."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.archive.format.configuration import KeptConfiguration, configuration_from_tar
from wal_pipeline.commands.backup.configuration import outside_configuration
from wal_pipeline.postgres import configuration_files
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
    assert outside_configuration(PostgresServer(cluster.conninfo)) is None


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
    postgres18: PostgresInstall, make_cluster: MakeCluster, etc: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each file by its name; and what the role may not see."""
    cluster = make_cluster(postgres18, wal_segment_size_mb=1).start()
    (etc / "a.conf").write_text("include 'gone.conf'\n")
    with (cluster.pgdata / "postgresql.conf").open("a") as conf:
        conf.write(f"include '{etc}/a.conf'\n")
    with caplog.at_level(logging.WARNING):
        data = outside_configuration(PostgresServer(cluster.conninfo))
    assert data is not None
    assert configuration_from_tar(data).files == {f"{etc}/a.conf": b"include 'gone.conf'\n"}
    assert f"a configuration file is not kept with the base backup: '{etc}/gone.conf' cannot be read: " in caplog.text
    cluster.psql("CREATE ROLE blind LOGIN REPLICATION")
    caplog.clear()
    assert outside_configuration(PostgresServer(f"{cluster.conninfo} user=blind")) is None
    assert "grant pg_read_all_settings to the role" in caplog.text
    cluster.stop()
    assert outside_configuration(PostgresServer(cluster.conninfo, connect_timeout_seconds=2)) is None
    assert "the configuration files are not kept with the base backup: cannot connect" in caplog.text
