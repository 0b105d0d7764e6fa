"""The method is chosen by the setting, the parent, and what is proven about the data directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.records import BackupMethod, MethodChoice
from wal_pipeline.commands.backup.local.method import ChosenMethod, choose_backup_method
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline_tests.support.manifests import make_local_manifest, make_manifest

pytestmark = pytest.mark.integration
AUTO, LOCAL, REMOTE = MethodChoice.AUTO, MethodChoice.LOCAL, MethodChoice.REMOTE


@pytest.fixture(scope="module")
def cluster(postgres18: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster."""
    made = PostgresCluster(postgres18).initdb()
    try:
        yield made.start()
    finally:
        made.remove()


def test_auto_is_local_where_the_directory_is_the_servers_own(cluster: PostgresCluster, tmp_path: Path) -> None:
    """Else it is remote, and says why; local says so as an error."""
    server = BackupServer(cluster.conninfo)
    assert choose_backup_method(AUTO, server, cluster.pgdata, None) == ChosenMethod(BackupMethod.LOCAL)
    assert choose_backup_method(LOCAL, server, cluster.pgdata, None) == ChosenMethod(BackupMethod.LOCAL)
    assert choose_backup_method(REMOTE, server, cluster.pgdata, None) == ChosenMethod(BackupMethod.REMOTE)
    unset = ChosenMethod(BackupMethod.REMOTE, "PGDATA is not set")
    assert choose_backup_method(AUTO, server, None, None) == unset
    other = choose_backup_method(AUTO, server, tmp_path, None)
    assert other.method is BackupMethod.REMOTE
    assert other.why_remote is not None
    with pytest.raises(BaseBackupError, match="the data directory cannot be read here: PGDATA is not set"):
        choose_backup_method(LOCAL, server, None, None)


def test_an_incremental_one_has_its_parents_method(cluster: PostgresCluster) -> None:
    """pg_basebackup cannot build on files that workers read, nor they on its tars; auto takes what fits."""
    server, local, remote = BackupServer(cluster.conninfo), make_local_manifest(), make_manifest()
    assert choose_backup_method(AUTO, server, cluster.pgdata, local).method is BackupMethod.LOCAL
    assert choose_backup_method(AUTO, server, cluster.pgdata, remote).method is BackupMethod.REMOTE
    for choice, parent, has in ((LOCAL, remote, "remote"), (REMOTE, local, "local")):
        with pytest.raises(BaseBackupError) as caught:
            choose_backup_method(choice, server, cluster.pgdata, parent)
        assert caught.value.message == (
            f"the parent '{parent.backup_id}' is of the method '{has}', this base backup is to be of '{choice}'"
        )
    with pytest.raises(BaseBackupError, match="PGDATA is not set"):
        choose_backup_method(AUTO, server, None, local)
