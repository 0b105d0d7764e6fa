"""The files backup_label and backup_manifest are read, and refused where they are not whole."""

import hashlib
import io

import pytest

from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.backup_label import BackupLabel, ManifestRange, parse_backup_label, read_wal_ranges
from wal_pipeline.wal.lsn import Lsn

LABEL = """START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-22 17:45:00 UTC
LABEL: nightly: of Sunday
START TIMELINE: 1
"""


def make_manifest(ranges: str, files: int = 1) -> bytes:
    """A backup_manifest with the server's layout and a right checksum."""
    entries = ",\n".join(f'{{ "Path": "base/1/{n}", "Size": 8192 }}' for n in range(files))
    text = f'{{ "PostgreSQL-Backup-Manifest-Version": 2,\n"Files": [\n{entries}\n],\n"WAL-Ranges": {ranges},\n'
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{text}"Manifest-Checksum": "{digest}"}}\n'.encode()


ONE_RANGE = '[\n{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000120" }\n]'


def test_a_label_is_read() -> None:
    """Start, timeline and label come from their lines; the label may hold colons."""
    assert parse_backup_label(LABEL) == BackupLabel(
        start_lsn=Lsn.parse("0/2000028"),
        start_segment="000000010000000000000002",
        timeline=1,
        label="nightly: of Sunday",
        incremental_from=None,
    )


def test_an_incremental_label_names_where_its_parent_began() -> None:
    """PostgreSQL 17 adds the parent's start LSN."""
    text = LABEL + "INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n"
    assert parse_backup_label(text).incremental_from == Lsn.parse("0/1000028")


def test_half_a_label_is_refused() -> None:
    """A label without its timeline was cut short."""
    with pytest.raises(BaseBackupError) as caught:
        parse_backup_label(LABEL.partition("START TIMELINE")[0])
    assert caught.value.message == "'backup_label' lacks the line of its start, its timeline or its label"


@pytest.mark.parametrize("files", [1, 5000])
def test_the_wal_range_is_read_however_long_the_manifest_is(files: int) -> None:
    """Only the end is kept in memory, and the checksum covers all of it."""
    found = read_wal_ranges(io.BytesIO(make_manifest(ONE_RANGE, files)))
    assert found == (ManifestRange(1, Lsn.parse("0/2000028"), Lsn.parse("0/2000120")),)


def test_ranges_come_oldest_first() -> None:
    """PostgreSQL writes the newest timeline first."""
    ranges = (
        '[{ "Timeline": 2, "Start-LSN": "0/3000500", "End-LSN": "0/4000100" },'
        '{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/3000500" }]'
    )
    assert [item.timeline for item in read_wal_ranges(io.BytesIO(make_manifest(ranges)))] == [1, 2]


def test_a_changed_manifest_is_refused() -> None:
    """One changed digit breaks the manifest's own checksum."""
    data = make_manifest(ONE_RANGE).replace(b"8192", b"8193")
    with pytest.raises(BaseBackupError) as caught:
        read_wal_ranges(io.BytesIO(data))
    assert caught.value.message == "'backup_manifest' does not match its own checksum"


def test_a_cut_manifest_is_refused() -> None:
    """Without its last line it has no checksum."""
    with pytest.raises(BaseBackupError) as caught:
        read_wal_ranges(io.BytesIO(make_manifest(ONE_RANGE)[:-5]))
    assert caught.value.message == "'backup_manifest' does not end with its checksum: it was cut short"
