"""A lease says who stores a base backup, and counts for minutes after its last sign of life."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.lease import LEASE_LASTS, Lease, LeasedWork, StoredLease

AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)
LEASE = Lease("00ff" * 4, LeasedWork.BASE_BACKUP, None, (), "db1", 17, "boot 17 1", "1.0", AT, AT + LEASE_LASTS)


def stored(lease: Lease | None, modified_at: datetime = AT) -> StoredLease:
    """Return a lease as it lies on a store."""
    return StoredLease("r2", ("key",), LEASE.token, 1, modified_at, lease)


def test_it_is_read_as_it_was_written() -> None:
    """With a backup id and a chain, or without."""
    assert Lease.parse(LEASE.token, LEASE.to_json()) == LEASE


@pytest.mark.parametrize("change", [{"version": 2}, {"work": "other"}, {"expires_at": "2026-11-22T17:45:00"}])
def test_what_a_later_version_wrote_is_not_guessed(change: dict[str, object]) -> None:
    """It reads as none, and then counts for a day."""
    data = json.dumps({**json.loads(LEASE.to_json()), **change}).encode()
    assert Lease.parse(LEASE.token, data) is None
    assert Lease.parse(LEASE.token, b"\0not json") is None


def test_it_ends_by_itself_within_minutes() -> None:
    """Ten minutes after the last sign of life it counts no more."""
    later = AT + LEASE_LASTS - timedelta(seconds=1)
    assert stored(LEASE).is_current(later, later)
    over = AT + LEASE_LASTS
    assert not stored(LEASE).is_current(over, over)


def test_one_that_cannot_be_read_counts_for_a_day() -> None:
    """A newer program on another host may be storing a base backup."""
    assert stored(None).is_current(AT + timedelta(hours=23), AT)
    assert not stored(None).is_current(AT + timedelta(hours=25), AT)


def test_a_host_whose_clock_is_behind_is_not_taken_for_dead() -> None:
    """The store's clock alone says that the sign of life is young."""
    behind = stored(Lease(**{**_values(), "expires_at": AT - timedelta(hours=3)}))
    assert behind.is_current(AT + timedelta(minutes=1), AT + timedelta(minutes=1))


def test_an_end_in_the_far_future_proves_nothing() -> None:
    """A clock was wrong when it was written."""
    ahead = stored(Lease(**{**_values(), "expires_at": AT + timedelta(days=9)}))
    assert not ahead.is_current(AT + timedelta(hours=1), AT + timedelta(hours=1))


def _values() -> dict[str, object]:
    return {name: getattr(LEASE, name) for name in LEASE.__slots__}


def test_keys_are_read_as_they_were_made() -> None:
    """Other names below the folder are none of ours."""
    layout = Layout("p", "main", 7575757575757575757)
    key = layout.lease_key(LEASE.token, 12)
    assert key == f"p/main/7575757575757575757/lease/{LEASE.token}.000012.json"
    assert layout.parse_lease_key(key) == (LEASE.token, 12)
    for other in (key + "x", key.replace("lease", "base"), layout.lease_root + "x.000001.json"):
        assert layout.parse_lease_key(other) is None
