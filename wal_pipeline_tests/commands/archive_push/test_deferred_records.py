"""Records that are written late are all written."""

from datetime import UTC, datetime
from pathlib import Path

from wal_pipeline.archive.records import WalFile
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.catalog.store_states import ArchiveEvents
from wal_pipeline.commands.archive_push.deferred_records import DeferredRecords
from wal_pipeline.wal.names import FileKind

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_counts_and_releases_are_written_together(tmp_path: Path) -> None:
    """Nothing is written before a second has passed; then every try and release is, and each only once."""
    catalog = open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}", "main", clock=lambda: NOON)
    names = ["000000010000000000000001", "000000010000000000000002"]
    files = [WalFile(name, FileKind.SEGMENT, 7, 1, 1 << 20, "a" * 64, spooled_at=NOON) for name in names]
    catalog.files.record_found(files, [])
    late = DeferredRecords(catalog, lambda: NOON)
    for store, succeeded in (("r2", True), ("r2", True), ("b2", True), ("b2", False)):
        late.tried(store, succeeded=succeeded)
    for name in names:
        late.released(7, name)
    late.write_if_due()
    assert catalog.stores.events(NOON) == []
    late.write()
    late.write()
    assert catalog.stores.events(NOON) == [ArchiveEvents("b2", NOON, 2, 1, 1), ArchiveEvents("r2", NOON, 2, 2, 0)]
    assert list(catalog.frames.files()["released_at"]) == [NOON, NOON]
