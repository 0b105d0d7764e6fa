"""The leases on a store are found whatever else lies there, and none of a living process is taken for ended."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.lease import Lease, LeasedWork
from wal_pipeline.commands.inventory.leases import find_leases, needed_backups, possible_leases
from wal_pipeline.host.process_identity import own_identity
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.base_backup_scene import folder_store, now

LAYOUT = Layout("", "main", 7575757575757575757)
IDS = tuple(f"2026112{day}T010000Z-000000010000000000000009" for day in range(4))
LEASE = Lease("0f" * 8, LeasedWork.BASE_BACKUP, IDS[1], IDS[:1], "db2", 4711, "", "1.0", now(), now())


@pytest.fixture
def place(tmp_path: Path) -> ClusterStore:
    """One cluster on a folder."""
    return ClusterStore(folder_store("r2", tmp_path), LAYOUT)


def put(place: ClusterStore, key: str, data: bytes) -> None:
    """Store an object."""
    place.store.put_if_absent(key, Body.of(data), {})


def test_the_newest_sign_of_life_of_each_holder_counts(place: ClusterStore) -> None:
    """What is no lease is left out, and a lease that cannot be read is not."""
    for number in (1, 2, 10):
        put(place, LAYOUT.lease_key(LEASE.token, number), replace(LEASE, process=number).to_json())
    put(place, LAYOUT.lease_key("ff" * 8, 3), b"no json")
    put(place, f"{LAYOUT.lease_root}notes.txt", b"a person's")
    found = {one.token: one for one in find_leases(place)}
    assert {token: (one.number, len(one.keys)) for token, one in found.items()} == {
        LEASE.token: (10, 3),
        "ff" * 8: (3, 1),
    }
    assert found[LEASE.token].lease == replace(LEASE, process=10)
    assert found["ff" * 8].lease is None


def test_a_lease_protects_what_it_names_until_its_holder_is_known_to_have_ended(place: ClusterStore) -> None:
    """It ended long ago by this clock, which proves nothing; a dead process of this machine needs nothing any more."""
    space = own_identity().rsplit(" ", 2)[0]
    put(place, LAYOUT.lease_key(LEASE.token, 1), replace(LEASE, expires_at=now() - timedelta(days=9)).to_json())
    dead = replace(LEASE, token="aa" * 8, backup_id=IDS[2], identity=f"{space} 4194305 1")
    put(place, LAYOUT.lease_key(dead.token, 1), dead.to_json())
    done = replace(LEASE, token="bb" * 8, backup_id=IDS[3], ended=True)
    put(place, LAYOUT.lease_key(done.token, 1), done.to_json())
    assert needed_backups(possible_leases(place)) == {IDS[0], IDS[1]}
