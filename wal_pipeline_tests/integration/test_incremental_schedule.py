"""Tests on a real server that a schedule's base backup is incremental where it can be, and full where it cannot."""

from collections.abc import Iterator

import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.records import BackupKind
from wal_pipeline.commands.backup.take import BackupOutcome
from wal_pipeline.commands.inventory.manifests import read_base_backup
from wal_pipeline.errors import SettingsError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wiring.backup import base_backup_taker
from wal_pipeline_tests.support.newest_drill import drill_newest
from wal_pipeline_tests.support.restore_history import History

pytestmark = [pytest.mark.integration, pytest.mark.newest_version]


@pytest.fixture(scope="module")
def history(postgres18: PostgresInstall, s3_pair: S3Pair) -> Iterator[History]:
    """A cluster that archives and, at first, summarizes no WAL."""
    with History.begin(postgres18, s3_pair) as made:
        yield made


def take(history: History, note: str = "", max_chain: int = 7) -> BackupOutcome:
    """Take a base backup as the daily schedule does."""
    history.environment["WAL_PIPELINE_BASE_BACKUP_MAX_CHAIN"] = str(max_chain)
    outcome = base_backup_taker(history.pipeline, archive=history.archive).take(
        incremental=True, or_full=True, note=note
    )
    assert outcome.complete
    return outcome


def kind_and_reason(outcome: BackupOutcome) -> tuple[BackupKind, str]:
    """Return the kind, and the note that says why it is a full one."""
    manifest, reasons = outcome.result.manifest, [note for note in outcome.notes if "full base backup" in note]
    return manifest.kind, reasons[0] if reasons else ""


def test_the_way_of_a_cluster_from_its_first_base_backup(history: History) -> None:
    """No parent; no summaries; summaries that begin too late; then incremental ones, until the chain is long enough.

    In this order, on one server: each state follows from the one before.
    """
    kind, why = kind_and_reason(take(history))
    assert (kind, "no base backup is whole on all stores" in why) == (BackupKind.FULL, True)

    kind, why = kind_and_reason(take(history))
    assert (kind, "'summarize_wal' is 'off'" in why) == (BackupKind.FULL, True)

    for _ in range(3):  # the server forgets the WAL since the newest base backup before anybody summarizes it
        history.mark("forgotten")
        history.end()
        history.cluster.psql("CHECKPOINT")
    history.cluster.stop()
    history.cluster.settings["summarize_wal"] = "on"
    history.cluster.start()
    kind, why = kind_and_reason(take(history))
    assert (kind, "WAL summaries are required" in why) == (BackupKind.FULL, True), why

    history.mark("changed")
    first = take(history, note="  before the release ")
    assert kind_and_reason(first) == (BackupKind.INCREMENTAL, "")
    for store in history.pipeline.stores.values():
        place = ClusterStore(store, history.pipeline.layout(first.result.manifest.system_identifier))
        assert read_base_backup(place, first.result.manifest.backup_id).note == "before the release"
    [recorded] = [one for one in history.pipeline.catalog.base_backups.all() if one.note]
    assert recorded.title == f"{first.result.manifest.backup_id} (before the release)"

    kind, why = kind_and_reason(take(history, max_chain=2))
    assert (kind, why.endswith("is the last of 2 base backups that build on each other, of at most 2")) == (
        BackupKind.FULL,
        True,
    )


def test_a_drill_restores_an_incremental_one(history: History) -> None:
    """And learns how long it takes to combine the chain."""
    history.mark("more")
    newest = take(history).result.manifest
    assert newest.kind is BackupKind.INCREMENTAL
    history.mark("after")
    history.end()
    result = drill_newest(history)
    assert (result.error, result.base_backup) == (None, newest.backup_id)
    assert result.measured is not None
    assert "combine" in {phase.value for phase in result.measured.seconds}
    assert result.measured.work.combined_bytes > result.measured.work.written_bytes


@pytest.mark.parametrize("note", ["two\nlines", "x" * 501, "a bell\a"])
def test_a_note_is_one_line(history: History, note: str) -> None:
    """It is refused before anything is read."""
    with pytest.raises(SettingsError, match="expected one line of at most 500"):
        take(history, note=note)
