"""Base backups, stores, system identifiers, values, drills, gaps and frames: written and read back."""

from dataclasses import replace
from datetime import timedelta

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.drills import DrillRecord
from wal_pipeline.catalog.gaps import GapAcknowledgement
from wal_pipeline.catalog.store_states import ArchiveEvents, RequestCounts, StoreState
from wal_pipeline_tests.support.catalog_records import NOON, SYSTEM_IDENTIFIER, base_backup, copy_of, history, segment
from wal_pipeline_tests.support.clock import TestClock


def backup_copy(store: str, backup_id: str = base_backup().backup_id) -> BaseBackupCopy:
    return BaseBackupCopy(backup_id, SYSTEM_IDENTIFIER, store, CopyStatus.VERIFIED, 7, 1_000_000_000, NOON, None, NOON)


def test_base_backup_is_read_back_whole(catalog: Catalog) -> None:
    """A base backup at the highest LSNs and its copies come back equal, the later record in place of the first."""
    waiting = replace(backup_copy("r2"), status=CopyStatus.PENDING, restorable_at=None)
    catalog.base_backups.record(base_backup(), [waiting])
    assert catalog.base_backups.copies() == [waiting]
    catalog.base_backups.record(base_backup(), [backup_copy("r2"), backup_copy("b2")])
    assert catalog.base_backups.all() == [base_backup()]
    assert catalog.base_backups.copies() == [backup_copy("b2"), backup_copy("r2")]


def test_base_backup_is_forgotten_with_its_last_copy(catalog: Catalog) -> None:
    """While one store has it, it is known."""
    catalog.base_backups.record(base_backup(), [backup_copy("r2"), backup_copy("b2")])
    catalog.base_backups.remove_copy(SYSTEM_IDENTIFIER, base_backup().backup_id, "r2")
    assert catalog.base_backups.all() == [base_backup()]
    catalog.base_backups.remove_copy(SYSTEM_IDENTIFIER, base_backup().backup_id, "b2")
    assert (catalog.base_backups.all(), catalog.base_backups.copies()) == ([], [])


def test_unseen_base_backups_are_forgotten_by_the_age_of_their_records(catalog: Catalog, clock: TestClock) -> None:
    """A base backup that was recorded since the moment stays."""
    old, new = base_backup("20261121T120000Z-000000010000000000000001"), base_backup()
    catalog.base_backups.record(old, [backup_copy("r2", old.backup_id)])
    begun_at = clock.pass_time(minutes=1)
    catalog.base_backups.record(new, [backup_copy("r2")])
    assert catalog.base_backups.remove_unseen(SYSTEM_IDENTIFIER, "r2", begun_at) == [old.backup_id]
    assert catalog.base_backups.all() == [new]


def test_store_state_is_kept(catalog: Catalog) -> None:
    """The last saved state of each store is returned."""
    assert catalog.stores.states() == {}
    failing = StoreState("r2", 3, "r2: connection refused", NOON, None, NOON + timedelta(minutes=5))
    for state in (StoreState("r2"), StoreState("b2", last_success_at=NOON), failing):
        catalog.stores.save_state(state)
    assert catalog.stores.states() == {"r2": failing, "b2": StoreState("b2", last_success_at=NOON)}


def test_events_add_up_per_hour(catalog: Catalog) -> None:
    """Counts of one hour are one row; the next hour has its own."""
    catalog.stores.count_events("r2", NOON, succeeded=3, failed=1)
    catalog.stores.count_events("r2", NOON + timedelta(minutes=59), succeeded=2)
    catalog.stores.count_events("r2", NOON + timedelta(minutes=60), failed=1)
    hour_at = NOON.replace(microsecond=0)
    later_at = hour_at + timedelta(hours=1)
    assert catalog.stores.events(hour_at) == [
        ArchiveEvents("r2", hour_at, 6, 5, 1),
        ArchiveEvents("r2", later_at, 1, 0, 1),
    ]
    assert catalog.stores.events(later_at) == [ArchiveEvents("r2", later_at, 1, 0, 1)]


def test_requests_add_up_per_day(catalog: Catalog) -> None:
    """Counts of one UTC day are one row."""
    catalog.stores.count_requests(RequestCounts("b2", NOON, 2, 1, 10**12, 5))
    catalog.stores.count_requests(RequestCounts("b2", NOON + timedelta(hours=11), class_a=1))
    day_at = NOON.replace(hour=0, microsecond=0)
    assert catalog.stores.requests(day_at) == [RequestCounts("b2", day_at, 3, 1, 10**12, 5)]


def test_system_identifiers_are_kept_in_the_order_they_were_seen(catalog: Catalog) -> None:
    """One that is known keeps the moment at which it was first seen."""
    catalog.system_identifiers.add(2**64 - 1, "from the server", NOON)
    catalog.system_identifiers.add(5, "from a store", NOON - timedelta(days=1))
    catalog.system_identifiers.add(2**64 - 1, "again", NOON - timedelta(days=9))
    assert catalog.system_identifiers.known() == [5, 2**64 - 1]


def test_values_are_kept_by_key(catalog: Catalog) -> None:
    """The last value is returned, None after it was removed."""
    catalog.values.put("pause", {"until_at": None, "reason": "maintenance ⏸"})
    catalog.values.put("pause", [1, 2.5, "x"])
    assert catalog.values.get("pause") == [1, 2.5, "x"]
    catalog.values.remove("pause")
    assert catalog.values.get("pause") is None


def test_a_note_stays_with_its_base_backup(catalog: Catalog) -> None:
    """So does what a restore downloads; both go with the last copy. What was said of it stands beside them."""
    plain = base_backup()
    noted = replace(plain, note="before the upgrade", fetched_size_bytes=123, warnings=("a warning",))
    copy = backup_copy("r2")
    catalog.base_backups.record(noted, [copy])
    catalog.base_backups.record(noted, [copy])
    assert catalog.base_backups.all() == [noted]
    catalog.base_backups.remove_copy(SYSTEM_IDENTIFIER, noted.backup_id, copy.store)
    assert catalog.base_backups.all() == []
    catalog.base_backups.record(plain, [copy])
    assert catalog.base_backups.all() == [plain]


def test_drills_are_kept(catalog: Catalog) -> None:
    """A running drill is not the last finished one; its result takes the place of its start."""
    running = DrillRecord("d1", "r2", "end", NOON)
    catalog.drills.record(running)
    assert (catalog.drills.all(), catalog.drills.last("r2")) == ([running], None)
    done = replace(running, finished_at=NOON, ok=True, seconds={"download": 1.5}, detail={"commit": "0/1"})
    catalog.drills.record(done)
    assert (catalog.drills.last("r2"), catalog.drills.last("b2")) == (done, None)


def test_gap_acknowledgements_are_kept(catalog: Catalog) -> None:
    """Who accepted a gap and why is read back, until it is withdrawn."""
    gap = GapAcknowledgement(SYSTEM_IDENTIFIER, 1, segment(3).name, segment(4).name, "ann", "disk lost", NOON)
    catalog.gaps.acknowledge(gap)
    assert catalog.gaps.acknowledged() == [gap]
    catalog.gaps.withdraw(gap)
    assert catalog.gaps.acknowledged() == []


def test_frames_have_moments_and_numbers(catalog: Catalog) -> None:
    """Reports compute with lags and sizes, and with moments in UTC."""
    for file in (segment(1), history()):
        catalog.files.record_verified(file, [copy_of(file, "r2"), copy_of(file, "b2")])
    catalog.base_backups.record(base_backup(), [backup_copy("r2")])
    copies = catalog.frames.copies()
    assert list(copies["store"]) == ["b2", "r2"] * 2
    assert copies["lag_seconds"].sum() == 6.0
    assert copies["stored_size_bytes"].sum() == 4000
    assert str(copies["verified_at"].dt.tz) == "UTC"
    assert list(catalog.frames.files()["name"]) == [segment(1).name, history().name]
    assert list(catalog.frames.base_backups()["finished_at"]) == [NOON + timedelta(minutes=5)]
    assert list(catalog.frames.base_backup_copies()["store"]) == ["r2"]


def test_frames_without_rows_have_their_columns(catalog: Catalog) -> None:
    """A report of an empty catalog finds the same columns."""
    assert catalog.frames.alerts().empty
    assert {"kind", "opened_at", "resolved_at"} <= set(catalog.frames.alerts().columns)
    assert catalog.frames.drills().empty
    assert catalog.frames.archive_events().empty


def test_claim_of_the_future_holds_nobody_up(catalog: Catalog) -> None:
    """A process that was killed while its clock was a year ahead does not hold a key for a year."""
    year = timedelta(days=365)
    assert catalog.values.claim("notifier", NOON + year, NOON + year + timedelta(minutes=3))
    assert catalog.values.claim("notifier", NOON, NOON + timedelta(minutes=3))
    slower = NOON - timedelta(minutes=1)
    assert not catalog.values.claim("notifier", slower, slower + timedelta(minutes=3))


def test_claimed_key_is_held_until_its_moment(catalog: Catalog) -> None:
    """Only one process holds a key; a killed one's claim ends by itself, and a given back one at once."""
    until_at = NOON + timedelta(minutes=2)
    assert catalog.values.claim("notifier", NOON, until_at)
    assert not catalog.values.claim("notifier", NOON + timedelta(minutes=1), until_at)
    assert catalog.values.claim("notifier", until_at, until_at + timedelta(minutes=2))
    catalog.values.remove("notifier")
    assert catalog.values.claim("notifier", NOON, until_at)
