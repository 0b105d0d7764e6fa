"""Which cluster a history file belongs to that was left in the spool over a pg_upgrade."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.wal.backup_history import BackupHistory
from wal_pipeline.wal.names import require_file_name
from wal_pipeline.wal.page_header import InvalidSegmentError, SegmentFault
from wal_pipeline.wal.text_owner import born_at, owner_of_text
from wal_pipeline.wal.timeline import TimelineHistory

OLD_AT = datetime(2025, 1, 1, tzinfo=UTC)
NEW_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOW = NEW_AT + timedelta(days=1)
HISTORY = TimelineHistory.parse(2, b"1\t0/3000000\tno recovery target specified\n")


def identifier(at: datetime) -> int:
    """Return the system identifier that initdb gives at a moment."""
    return int(at.timestamp()) << 32 | 12345 << 12 | 77


OLD, NEW = identifier(OLD_AT), identifier(NEW_AT)


def backup_history(started: str) -> BackupHistory:
    """Return a backup history file of a base backup that began then."""
    text = (
        "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"
        "STOP WAL LOCATION: 0/2000120 (file 000000010000000000000002)\n"
        "CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n"
        f"START TIME: {started}\nLABEL: nightly\nSTART TIMELINE: 1\nSTOP TIME: {started}\nSTOP TIMELINE: 1\n"
    )
    return BackupHistory.parse(require_file_name("000000010000000000000002.00000028.backup"), text.encode())


def test_the_birth_of_a_cluster_is_in_its_identifier() -> None:
    """One that is no date says nothing."""
    assert born_at(NEW) == NEW_AT
    assert born_at(42) is None


def test_a_history_file_left_over_an_upgrade_is_the_old_clusters() -> None:
    """It is archived for the old cluster where that is known, and not at all for the new one."""
    before = NEW_AT - timedelta(hours=3)
    assert owner_of_text("00000002.history", HISTORY, before, [OLD, NEW], NEW, now=NOW) == OLD
    with pytest.raises(InvalidSegmentError) as caught:
        owner_of_text("00000002.history", HISTORY, before, [NEW], NEW, now=NOW)
    assert caught.value.fault is SegmentFault.WRONG_CLUSTER
    assert caught.value.message.startswith(
        f"'00000002.history' is of 2026-11-22 09:00:00 UTC and older than the cluster with system identifier {NEW}, "
        "which was made at 2026-11-22 12:00:00 UTC"
    )


def test_a_backup_history_file_tells_its_own_time() -> None:
    """Whatever time a copy gave the file: its base backup began before the new cluster was made."""
    found = backup_history("2026-11-21 02:15:00 UTC")
    name = "000000010000000000000002.00000028.backup"
    assert owner_of_text(name, found, NOW, [OLD, NEW], NEW, now=NOW) == OLD
    assert owner_of_text(name, backup_history("2026-11-23 02:15:00 UTC"), NOW, [OLD, NEW], NEW, now=NOW) == NEW


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_a_clusters_own_files_are_its_own(system_identifier: int, seconds: int) -> None:
    """Whatever its identifier, also one that no initdb gave, or one of a host whose clock is wrong."""
    birth = born_at(system_identifier) if system_identifier >> 32 < 2**32 else None
    at = (birth or OLD_AT) + timedelta(seconds=seconds)
    assert owner_of_text("00000002.history", HISTORY, at, [system_identifier], system_identifier, now=NOW) == (
        system_identifier
    )
