"""The cost from what is stored and done, and the counting of requests."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.cost import DEFAULT_PRICES, GB
from wal_pipeline.archive.records import BackupKind, BaseBackup
from wal_pipeline.catalog.store_states import RequestCounts
from wal_pipeline.commands.cost.cost import cost_as_json, current_cost, parse_size
from wal_pipeline.commands.cost.request_counts import RequestLedger
from wal_pipeline.errors import SettingsError
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.stores.request_meter import RequestMeter
from wal_pipeline_tests.support.health_scene import NOW, HealthScene, name


def test_from_what_is_stored_and_done(tmp_path: Path) -> None:
    """Storage of WAL and base backups, requests of 30 days, and a restore: the newest base backup and the WAL since."""
    scene = HealthScene(tmp_path)
    scene.archive(*range(1, 11))
    scene.back_up(2)
    for age, count in ((1, 1_000_000), (29, 1_000_000), (40, 5_000_000)):
        scene.catalog.stores.count_requests(RequestCounts("r2", NOW - timedelta(days=age), count, 2 * count))
    report = current_cost(scene.catalog, DEFAULT_PRICES, NOW)
    found = cost_as_json(report.cost, report.usage)
    stored = 10 * 200_000 + 3 * 10**8
    restore = 7 * 200_000 + 3 * 10**8
    assert found["stored_bytes"] == 2 * stored
    assert found["stores"]["r2"] == {
        "stored_bytes": stored,
        "storage_usd": round(stored / GB * 0.015, 6),
        "requests_usd": 2 * 4.5 + 4 * 0.36,
        "month_usd": round(stored / GB * 0.015 + 2 * 4.5 + 4 * 0.36, 6),
        "restore_usd": 0.0,
        "class_a_requests": 2_000_000,
        "class_b_requests": 4_000_000,
        "restore_bytes": restore,
    }
    assert found["stores"]["b2"]["restore_usd"] == round(restore / GB * 0.01, 6)


def record_copies(scene: HealthScene, backup: BaseBackup) -> None:
    """Record a base backup on the stores that have the one before it."""
    copies = [one for one in scene.catalog.base_backups.copies() if one.backup_id == backup.parent_id]
    own = [replace(one, backup_id=backup.backup_id, stored_size_bytes=backup.stored_size_bytes) for one in copies]
    scene.catalog.base_backups.record(backup, own)


def with_incremental(tmp_path: Path, *, fetched_size_bytes: int | None) -> tuple[HealthScene, BaseBackup]:
    """Archive ten segments, and record a full base backup and an incremental one of 10 MB."""
    scene = HealthScene(tmp_path)
    scene.archive(*range(1, 11))
    scene.back_up(2)
    [full] = scene.catalog.base_backups.all()
    child = replace(
        full,
        backup_id=full.backup_id.replace(name(2), name(5)),
        kind=BackupKind.INCREMENTAL,
        parent_id=full.backup_id,
        stored_size_bytes=10**7,
        fetched_size_bytes=fetched_size_bytes,
    )
    record_copies(scene, child)
    return scene, child


def test_volumes_that_an_incremental_base_backup_refers_to_are_counted_once(tmp_path: Path) -> None:
    """Each is stored where it was first; a restore fetches them, and not all of the earlier base backup."""
    scene, child = with_incremental(tmp_path, fetched_size_bytes=10**7 + 2 * 10**8)
    usage = current_cost(scene.catalog, DEFAULT_PRICES, NOW).usage["r2"]
    wal = scene.catalog.measures.stored_since("r2", child.started_at)
    assert usage.stored_bytes == 10 * 200_000 + 3 * 10**8 + 10**7
    assert usage.restore_bytes == 10**7 + 2 * 10**8 + wal
    by_block = replace(
        child,
        backup_id=child.backup_id.replace(name(5), name(7)),
        parent_id=child.backup_id,
        stored_size_bytes=10**6,
        fetched_size_bytes=None,
        finished_at=child.finished_at + timedelta(hours=1),
    )
    record_copies(scene, by_block)
    mixed = current_cost(scene.catalog, DEFAULT_PRICES, NOW).usage["r2"].restore_bytes
    assert mixed == 10**6 + 10**7 + 2 * 10**8 + scene.catalog.measures.stored_since("r2", by_block.started_at)


def test_all_of_a_chain_of_blocks_is_fetched(tmp_path: Path) -> None:
    """It is combined, so a restore needs each base backup of it."""
    scene, child = with_incremental(tmp_path, fetched_size_bytes=None)
    wal = scene.catalog.measures.stored_since("r2", child.started_at)
    assert current_cost(scene.catalog, DEFAULT_PRICES, NOW).usage["r2"].restore_bytes == 10**7 + 3 * 10**8 + wal


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1GB", 10**9), ("1.5GiB", 3 * 2**29), ("500 MB", 5 * 10**8), ("7", 7), ("2k", 2000), ("1TiB", 2**40)],
)
def test_parse_size(text: str, expected: int) -> None:
    """Price lists count in powers of ten; who means powers of two says so."""
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "1e9"])
def test_no_size(text: str) -> None:
    """What cannot be read is refused with an example."""
    with pytest.raises(SettingsError) as caught:
        parse_size(text)
    assert str(caught.value) == f"'{text}' is not a size\nHINT: Write it as 500MB, 1GB or 1.5GiB."


def test_requests_are_counted_once(tmp_path: Path) -> None:
    """Each call adds only what was asked since; deletes are free, a local folder has no requests."""
    scene = HealthScene(tmp_path)
    store = LocalFolderStore("r2", tmp_path / "store")
    store.meter = meter = RequestMeter()  # type: ignore[attr-defined]
    opened = [store, LocalFolderStore("b2", tmp_path / "other")]
    ledger = RequestLedger()
    for _ in range(2):
        meter.count("put_object", seconds=0.1, requests=2)
        meter.count("upload_part", seconds=0.1)
        meter.count("head_object", seconds=0.1)
        meter.count("delete_object", seconds=0.1)
        meter.add_bytes(sent=100, received=7)
        ledger.record(opened, scene.catalog, NOW)
        ledger.record(opened, scene.catalog, NOW)
    day_at = NOW.replace(hour=0)
    assert scene.catalog.stores.requests(NOW - timedelta(days=1)) == [RequestCounts("r2", day_at, 6, 2, 200, 14)]
