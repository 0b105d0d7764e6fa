"""The method is chosen by the setting, the parent, and what is proven about the data directory."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.records import BackupMethod, MethodChoice
from wal_pipeline.commands.backup.local.method import ChosenMethod, choose_backup_method
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline_tests.support.manifests import make_local_manifest, make_manifest
from wal_pipeline_tests.support.server_facts import facts

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


def test_a_parent_of_blocks_has_only_blocks_on_it(cluster: PostgresCluster) -> None:
    """Workers know nothing of its files: auto takes what fits, local is refused."""
    server, remote = BackupServer(cluster.conninfo), make_manifest()
    assert choose_backup_method(AUTO, server, cluster.pgdata, remote, facts()) == ChosenMethod(BackupMethod.REMOTE)
    with pytest.raises(BaseBackupError) as caught:
        choose_backup_method(LOCAL, server, cluster.pgdata, remote)
    assert caught.value.message == (
        f"the parent '{remote.backup_id}' is of the method 'remote', this base backup is to be of 'local'"
    )


@pytest.mark.parametrize(
    ("found", "method"),
    [
        (None, BackupMethod.LOCAL),
        (facts(), BackupMethod.LOCAL),
        (facts(summarize_wal=True), BackupMethod.REMOTE),
        (facts(summarize_wal=True, server_version_num=190001), BackupMethod.LOCAL),
        (facts(summarize_wal=None, server_version_num=150004), BackupMethod.LOCAL),
        (facts(summarize_wal=True, role=replace(facts().role, replication=False)), BackupMethod.LOCAL),
    ],
    ids=["not asked", "no summaries", "summaries", "upgraded since", "too old", "no right"],
)
def test_auto_sends_blocks_on_a_parent_of_files_where_the_server_can(
    cluster: PostgresCluster, found: ServerFacts | None, method: BackupMethod
) -> None:
    """local refers to files all the same, and remote is what the person wants."""
    server, local = BackupServer(cluster.conninfo), make_local_manifest()
    chosen = choose_backup_method(AUTO, server, cluster.pgdata, local, found)
    assert (chosen.method, chosen.why_remote is not None) == (method, method is BackupMethod.REMOTE)
    assert choose_backup_method(LOCAL, server, cluster.pgdata, local, found).method is BackupMethod.LOCAL
    assert choose_backup_method(REMOTE, server, cluster.pgdata, local, found) == ChosenMethod()


def test_a_parent_of_files_that_cannot_be_read_now_is_refused(cluster: PostgresCluster) -> None:
    """A full one in its place would be taken without a word."""
    with pytest.raises(BaseBackupError, match="PGDATA is not set"):
        choose_backup_method(AUTO, BackupServer(cluster.conninfo), None, make_local_manifest(), facts())
