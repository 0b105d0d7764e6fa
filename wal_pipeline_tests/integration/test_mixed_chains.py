"""Tests on real servers that PostgreSQL's incremental base backups build on those that were read from the files."""

import os
import time
from collections.abc import Iterator

import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.records import BackupKind, BackupMethod
from wal_pipeline.commands.backup.take import BackupOutcome
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wiring.backup import base_backup_taker
from wal_pipeline_tests.support.newest_drill import drill_newest
from wal_pipeline_tests.support.restore_history import History, restored

pytestmark = [pytest.mark.integration, pytest.mark.newest_version]


@pytest.fixture(scope="module")
def history(postgres18: PostgresInstall, s3_pair: S3Pair) -> Iterator[History]:
    """A cluster that archives and summarizes its WAL, with a tablespace, whose data directory is read here."""
    with History.begin(postgres18, s3_pair, settings={"summarize_wal": "on"}) as made:
        made.cluster.make_tablespace("apart")
        made.cluster.psql("CREATE TABLE apart TABLESPACE apart AS SELECT generate_series(1, 30000) AS n")
        made.cluster.psql("CREATE DATABASE other")
        made.cluster.psql("CHECKPOINT")
        long_ago = time.time() - 3600  # a file that changed just before a base backup is stored again by the next one
        for path in (made.cluster.pgdata / "base").rglob("*"):
            os.utime(path, (long_ago, long_ago))
        made.archiver_settings = {
            "PGDATA": str(made.cluster.pgdata),
            "WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB": "1",
        }
        yield made


def take(history: History, method: str = "auto", *, incremental: bool = True, or_full: bool = False) -> BackupOutcome:
    """Take a base backup after some commits."""
    history.mark("changed")
    history.cluster.psql("CHECKPOINT")
    history.archiver_settings["WAL_PIPELINE_BACKUP_METHOD"] = method
    outcome = base_backup_taker(history.pipeline, archive=history.archive).take(
        incremental=incremental, or_full=or_full
    )
    assert outcome.complete, outcome
    return outcome


def told(outcome: BackupOutcome) -> tuple[BackupKind, BackupMethod, tuple[str, ...]]:
    """Return the kind, the method and the chain."""
    manifest = outcome.result.manifest
    return manifest.kind, manifest.method, manifest.chain


@pytest.fixture(scope="module")
def chain(history: History) -> list[BaseBackupManifest]:
    """A full base backup of the files, one by file on it, and two by block on that."""
    full = take(history, incremental=False)
    by_file = take(history, "local")
    first, second = take(history), take(history)
    ids = [one.result.manifest.backup_id for one in (full, by_file, first, second)]
    assert told(full) == (BackupKind.FULL, BackupMethod.LOCAL, ())
    assert told(by_file) == (BackupKind.INCREMENTAL, BackupMethod.LOCAL, tuple(ids[:1]))
    assert told(first) == (BackupKind.INCREMENTAL, BackupMethod.REMOTE, tuple(ids[:2]))
    assert told(second) == (BackupKind.INCREMENTAL, BackupMethod.REMOTE, tuple(ids[:3]))
    assert first.result.why_remote == "the server summarizes its WAL, so that it sends only the blocks that changed"
    return [one.result.manifest for one in (full, by_file, first, second)]


@pytest.mark.left_out
def test_a_chain_of_both_methods_comes_back(history: History, chain: list[BaseBackupManifest]) -> None:
    """From its newest base backup, and from each before it; every row of the tablespace is there."""
    history.mark("after")
    end = history.end()
    for manifest in chain[1:]:
        folder = history.folder / f"spaces-{manifest.backup_id}"
        words = (f"--base-backup={manifest.backup_id}", f"--tablespace-map-all={folder}", "--verify-with=postgres")
        with restored(history, *words) as found:
            assert found.moment() == (end.marks, end.transactions)
            assert found.balances_agree()
            assert found.cluster.value("SELECT sum(n) FROM apart") == str(30000 * 30001 // 2)
    assert chain[2].stored_size_bytes < chain[0].stored_size_bytes / 3


def test_only_some_databases_of_such_a_chain(history: History, chain: list[BaseBackupManifest]) -> None:
    """The volumes of the others are left out of both kinds of base backups."""
    end = history.end()
    words = (
        f"--base-backup={chain[-1].backup_id}",
        f"--tablespace-map-all={history.folder / 'chosen'}",
        "--only-database=postgres",
        "--no-archiving",
    )
    with restored(history, *words) as found:
        assert found.moment() == (end.marks, end.transactions)
        assert found.cluster.value("SELECT count(*) FROM pg_database WHERE datname = 'other'") == "0"


def test_a_drill_of_such_a_chain(history: History, chain: list[BaseBackupManifest]) -> None:
    """It combines them."""
    history.end()
    result = drill_newest(history)
    assert (result.error, result.base_backup) == (None, chain[-1].backup_id)
    assert result.measured is not None
    assert "combine" in {phase.value for phase in result.measured.seconds}


def test_files_cannot_be_compared_with_a_parent_of_blocks(history: History, chain: list[BaseBackupManifest]) -> None:
    """It is refused, or a full one is taken, which says why."""
    reason = f"the parent '{chain[-1].backup_id}' is of the method 'remote', this base backup is to be of 'local'"
    with pytest.raises(BaseBackupError) as caught:
        take(history, "local")
    assert caught.value.message == reason
    outcome = take(history, "local", or_full=True)
    assert told(outcome)[:2] == (BackupKind.FULL, BackupMethod.LOCAL)
    assert any(reason in note for note in outcome.notes)


def test_files_are_compared_where_no_blocks_come(history: History, caplog: pytest.LogCaptureFixture) -> None:
    """pg_hba.conf lets nobody replicate; then the server keeps no summaries."""
    cluster = history.cluster
    take(history, incremental=False)
    access = cluster.pgdata / "pg_hba.conf"
    before = access.read_text()
    access.write_text("host replication all all reject\nlocal replication all reject\n" + before)
    cluster.psql("SELECT pg_reload_conf()")
    try:
        assert told(take(history))[:2] == (BackupKind.INCREMENTAL, BackupMethod.LOCAL)
        assert "the server sends no blocks" in caplog.text
    finally:
        access.write_text(before)
        cluster.psql("SELECT pg_reload_conf()")
    cluster.stop()
    cluster.settings["summarize_wal"] = "off"
    cluster.start()
    assert told(take(history))[:2] == (BackupKind.INCREMENTAL, BackupMethod.LOCAL)
    with pytest.raises(BaseBackupError, match="'summarize_wal' is 'off'"):
        take(history, "remote")
