"""Backup history files: real contents, and those that were cut."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.errors import InvalidWalNameError
from wal_pipeline.wal.backup_history import BackupHistory, InvalidBackupHistoryError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name

NAME = require_file_name("000000020000000000000008.00000028.backup")
# As PostgreSQL 18 archived it for an incremental base backup.
REAL = b"""\
START WAL LOCATION: 0/8000028 (file 000000020000000000000008)
STOP WAL LOCATION: 0/8000120 (file 000000020000000000000008)
CHECKPOINT LOCATION: 0/8000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-22 17:59:28 UTC
LABEL: nightly: all
START TIMELINE: 2
STOP TIME: 2026-11-22 17:59:29 UTC
STOP TIMELINE: 2
INCREMENTAL FROM LSN: 0/6000028
INCREMENTAL FROM TLI: 2
"""
FULL = REAL[: REAL.index(b"INCREMENTAL")]


def test_a_real_file() -> None:
    """All that PostgreSQL wrote is read."""
    history = BackupHistory.parse(NAME, REAL)
    assert history == BackupHistory(
        start_lsn=Lsn(0x8000028),
        start_segment="000000020000000000000008",
        stop_lsn=Lsn(0x8000120),
        stop_segment="000000020000000000000008",
        checkpoint_lsn=Lsn(0x8000080),
        from_standby=False,
        label="nightly: all",
        start_timeline=2,
        stop_timeline=2,
        start_time="2026-11-22 17:59:28 UTC",
        stop_time="2026-11-22 17:59:29 UTC",
        parent_lsn=Lsn(0x6000028),
        parent_timeline=2,
    )
    assert history.started_at == datetime(2026, 11, 22, 17, 59, 28, tzinfo=UTC)
    assert history.stopped_at == datetime(2026, 11, 22, 17, 59, 29, tzinfo=UTC)


def test_a_full_base_backup_has_no_parent() -> None:
    """Without the two last lines the base backup is a full one."""
    history = BackupHistory.parse(NAME, FULL)
    assert (history.parent_lsn, history.parent_timeline) == (None, None)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_any_label_is_read(label: str) -> None:
    """A label may hold anything, line ends and other lines' words too."""
    content = FULL.replace(b"nightly: all", label.encode())
    assert BackupHistory.parse(NAME, content).label == label


def test_a_label_that_looks_like_the_other_lines() -> None:
    """A label cannot pass itself off as the file's own lines."""
    content = FULL.replace(b"nightly: all", b"x\nSTART TIMELINE: 9\nSTOP TIME: y\nSTOP TIMELINE: 9")
    assert BackupHistory.parse(NAME, content).stop_timeline == 2


@pytest.mark.parametrize("size", [size for size in range(len(REAL)) if size != len(FULL)])
def test_half_a_copy_is_refused(size: int) -> None:
    """A file cut anywhere is refused, but for a cut just before an incremental one's two last lines."""
    with pytest.raises(InvalidBackupHistoryError):
        BackupHistory.parse(NAME, REAL[:size])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a whole backup history file: its line 'START WAL LOCATION:' is missing or cut"),
        (FULL[:-1], "is not a whole backup history file: its line 'STOP TIMELINE:' is missing or cut"),
        (
            FULL.replace(b"CHECKPOINT", b"CHECK"),
            "is not a whole backup history file: its line 'CHECKPOINT LOCATION:' is missing or cut",
        ),
        (REAL[:-8], "has lines that no backup history file has, or its INCREMENTAL lines are cut"),
        (
            FULL.replace(b"0/8000028 (file 000000020000000000000008", b"0/9000028 (file 000000020000000000000009"),
            "is about a base backup that starts at 0/9000028 in '000000020000000000000009', "
            "expected at 28 in '000000020000000000000008'",
        ),
        (
            FULL.replace(b"START WAL LOCATION: 0/8000028", b"START WAL LOCATION: 0/8000060"),
            "is about a base backup that starts at 0/8000060 in '000000020000000000000008', "
            "expected at 28 in '000000020000000000000008'",
        ),
    ],
)
def test_what_is_wrong_is_named(content: bytes, message: str) -> None:
    """The error says which line is missing, or how name and content differ."""
    with pytest.raises(InvalidBackupHistoryError) as caught:
        BackupHistory.parse(NAME, content)
    assert caught.value.message == f"'{NAME.name}' {message}"


def test_lines_of_a_later_release_are_accepted() -> None:
    """Lines that a later release adds at the end do no harm."""
    assert BackupHistory.parse(NAME, REAL + b"NEW FACT: 1\n").parent_timeline == 2


def test_only_backup_history_names() -> None:
    """Another file's name is refused."""
    with pytest.raises(InvalidWalNameError) as caught:
        BackupHistory.parse(require_file_name("00000002.history"), REAL)
    assert caught.value.message == "'00000002.history' is not the name of a backup history file"


@pytest.mark.parametrize(
    ("zone", "offset"),
    [
        ("UTC", timedelta(0)),
        ("GMT", timedelta(0)),
        ("+03", timedelta(hours=3)),
        ("-0330", -timedelta(hours=3, minutes=30)),
        ("CST", None),
        ("CEST", None),
        ("+9999", None),
    ],
)
def test_times_are_known_only_where_the_zone_is_one_offset(zone: str, offset: timedelta | None) -> None:
    """Abbreviations such as CST have several meanings: such a time stays the server's words."""
    history = BackupHistory.parse(NAME, FULL.replace(b"17:59:28 UTC", f"17:59:28 {zone}".encode()))
    expected = None if offset is None else datetime(2026, 11, 22, 17, 59, 28, tzinfo=timezone(offset))
    assert history.started_at == expected
    assert history.start_time == f"2026-11-22 17:59:28 {zone}"
