"""Tests that a data directory that is there gets its WAL from the stores, and that its files stay."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, give_to_postgres, owned_folder, postgres_user
from testbed.s3_pair import S3Pair
from wal_pipeline.commands.archive_get.restore_command import prefetch_folder
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.commands.restore.perform import RestoreCommand, perform_restore
from wal_pipeline.commands.restore.prepare import RestoreRequest
from wal_pipeline.commands.restore.standby.request import StandbyRequest
from wal_pipeline.commands.restore.standby.wal_only import prepare_wal_only
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.open_wal_scene import make_standby, wait_replayed, write_wal
from wal_pipeline_tests.support.restore_history import History, Moment, run_restore, wait_until

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Folders:
    """A lost cluster, and what lay beside it: folders that others made, each a state of it before its last commits."""

    history: History
    folder: Path
    moments: dict[str, Moment]

    @contextmanager
    def copy_of(self, name: str) -> Iterator[PostgresCluster]:
        """Copy one of the folders; its server is stopped and all is removed at the end."""
        cluster = PostgresCluster(self.history.install, owned_folder("kept"), env=self.history.environment)
        shutil.copytree(self.folder / name, cluster.pgdata, symlinks=True)
        give_to_postgres(cluster.pgdata)
        try:
            yield cluster
        finally:
            if (cluster.pgdata / "postmaster.pid").exists():
                cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(cluster.pgdata))
            cluster.remove()

    def restore(self, cluster: PostgresCluster, *options: str) -> dict[str, Any]:
        """Set up a folder's recovery, start its server, and return the answer."""
        where = {"port": cluster.port, "unix_socket_directories": cluster.socket_folder}
        quick = {"listen_addresses": "127.0.0.1", "wal_retrieve_retry_interval": "200ms", "archive_mode": "off"}
        given = [f"--set={name}={value}" for name, value in {**where, **quick}.items()]
        arguments = (f"--pgdata={cluster.pgdata}", "--wal-only", "--start", "--json", *given, *options)
        done = run_restore(self.history, *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def refused(self, pgdata: Path, *options: str) -> str:
        """Return the error with which a folder is refused."""
        done = run_restore(self.history, f"--pgdata={pgdata}", "--wal-only", "--archiving", *options)
        assert done.returncode != 0, done.stdout
        return done.stderr


@pytest.fixture(scope="module")
def folders(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Folders]:
    """'by_hand': pg_basebackup's. 'standby': of one that was shut down. 'crashed': a copy while the server ran."""
    with History.begin(postgres_version, s3_pair) as history:
        history.mark("before")
        folder, cluster = owned_folder("folders"), history.cluster
        cluster.run("pg_basebackup", f"--pgdata={folder / 'by_hand'}", "--checkpoint=fast", "--wal-method=none")
        standby = make_standby(postgres_version, cluster).start()
        wait_replayed(standby, write_wal(cluster))
        standby.stop()
        shutil.copytree(standby.pgdata, folder / "standby", symlinks=True)
        standby.remove()
        subprocess.run(["cp", "-a", cluster.pgdata, folder / "crashed"], check=True)
        (folder / "crashed" / "postmaster.pid").unlink()
        history.mark("after")
        moments = {"after": history.moment("after")}
        moments["end"] = history.end()
        cluster.stop()
        shutil.copytree(cluster.pgdata, folder / "primary", symlinks=True)
        history.lose()
        try:
            yield Folders(history, folder, moments)
        finally:
            shutil.rmtree(folder)


def marks(cluster: PostgresCluster) -> tuple[int, int]:
    """Return the number of marks and of pgbench transactions."""
    found = cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM pgbench_history)").split("|")
    return int(found[0]), int(found[1])


def test_a_base_backup_that_was_made_by_hand_recovers_to_a_time(folders: Folders) -> None:
    """It downloads nothing but WAL, and keeps every file; there is no base backup of ours at all."""
    moment = folders.moments["after"]
    with folders.copy_of("by_hand") as cluster:
        inode = (cluster.pgdata / "PG_VERSION").stat().st_ino
        answer = folders.restore(cluster, "--archiving", f"--to-time={moment.at}")
        assert (answer["downloaded_bytes"], answer["base_backups"]) == (0, [])
        assert answer["recovery"]["state"] == "open"
        assert marks(cluster) == (moment.marks, moment.transactions)
        assert (cluster.pgdata / "PG_VERSION").stat().st_ino == inode
        assert not (cluster.pgdata / ".wal-pipeline-restore").exists()


def test_a_standby_goes_on_from_the_stores(folders: Folders) -> None:
    """It stays a standby, has all that was archived since it was stopped, and still names its dead primary."""
    end = folders.moments["end"]
    with folders.copy_of("standby") as cluster:
        answer = folders.restore(cluster, "--standby")
        assert answer["recovery"]["state"] == "following"
        wait_until(lambda: marks(cluster) == (end.marks, end.transactions))
        assert "application_name=a_standby" in cluster.value("SHOW primary_conninfo")
        assert cluster.value("SELECT pg_is_in_recovery()") == "t"


def test_a_standby_becomes_a_server_of_its_own(folders: Folders) -> None:
    """Without --standby it recovers to the end of the archive and opens."""
    end = folders.moments["end"]
    with folders.copy_of("standby") as cluster:
        answer = folders.restore(cluster, "--no-archiving")
        assert "it was a standby, and is none any more" in answer["notes"]
        assert (answer["recovery"]["state"], answer["recovery"]["timeline"]) == ("open", 2)
        assert marks(cluster) == (end.marks, end.transactions)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_root_sets_up_what_the_servers_user_starts(folders: Folders) -> None:
    """The files that are written are the server's own, and nothing else of the folder changes hands."""
    pipeline = Pipeline(load_settings(folders.history.environment))
    stores = tuple(pipeline.stores.values())
    layout = pipeline.layout(find_system_identifier(stores, "", "main", None))
    with folders.copy_of("by_hand") as cluster:
        bindir = folders.history.install.bin_folder
        request = RestoreRequest(cluster.pgdata, standby=StandbyRequest(), wal_only=True, bindir=bindir)
        folder = prefetch_folder(cluster.pgdata, layout.system_identifier)
        perform_restore(prepare_wal_only(request, stores, layout), RestoreCommand(("false",), folder))
        owner = postgres_user().uid
        assert {path.lstat().st_uid for path in cluster.pgdata.rglob("*")} == {owner}
        assert {path.lstat().st_uid for path in cluster.folder.rglob("*")} == {owner}
        assert not (cluster.pgdata / "recovery.signal").exists()
        assert (cluster.pgdata / "standby.signal").stat().st_mode & 0o777 == 0o600


def test_folders_that_the_stores_do_not_continue_are_refused(folders: Folders) -> None:
    """Each error says which it is, and nothing in the folder is changed."""
    with folders.copy_of("crashed") as cluster:
        assert f"the cluster in '{cluster.pgdata}' was not shut down" in folders.refused(cluster.pgdata)
        assert not (cluster.pgdata / "recovery.signal").exists()
    with folders.copy_of("primary") as cluster:  # its last record is in a segment that it never archived
        said = folders.refused(cluster.pgdata)
        assert f"the stores do not continue '{cluster.pgdata}', whose recovery begins at" in said
        cluster.start()
        assert f"'{cluster.pgdata}'" in folders.refused(cluster.pgdata)
        assert not (cluster.pgdata / "recovery.signal").exists()
    with folders.copy_of("by_hand") as cluster:
        said = folders.refused(cluster.pgdata, "--force")
        assert "'--force' contradicts '--wal-only': the files that are there stay as they are." in said
        (cluster.pgdata / "PG_VERSION").unlink()
        assert "it has no 'PG_VERSION'" in folders.refused(cluster.pgdata)
        shutil.rmtree(cluster.pgdata / "global")
        assert "--wal-only is for a data directory that is there" in folders.refused(cluster.pgdata)
    with PostgresCluster(folders.history.install).initdb() as other:
        other.stop()
        assert other.system_identifier in folders.refused(other.pgdata)
        shutil.rmtree(other.folder)
