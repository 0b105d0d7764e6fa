"""Finds the leases on a store, by which running processes say what they store there and what they build on."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from wal_pipeline.archive.format.lease import Lease, StoredLease
from wal_pipeline.errors import ObjectMissingError
from wal_pipeline.host.process_identity import is_dead
from wal_pipeline.stores.base import StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore

_LIST_TRIES: Final = 3
_MAX_LEASE_BYTES: Final = 1 << 20


def find_leases(place: ClusterStore) -> list[StoredLease]:
    """Return the newest sign of life of each holder, whether or not it still counts. Raises: StoreError."""
    for _ in range(_LIST_TRIES):
        try:
            return _find_leases(place)
        except ObjectMissingError:  # its holder renewed it, or is done, since it was listed
            continue
    return _find_leases(place)


def _find_leases(place: ClusterStore) -> list[StoredLease]:
    found: dict[str, list[tuple[int, StoredObject]]] = defaultdict(list)
    for item in place.store.list(place.layout.lease_root):
        parsed = place.layout.parse_lease_key(item.key)
        if parsed is not None:
            found[parsed[0]].append((parsed[1], item))
    leases = []
    for token, items in found.items():
        items.sort(key=lambda one: one[0])
        number, newest = items[-1]
        keys = tuple(item.key for _, item in items)
        leases.append(StoredLease(place.name, keys, token, number, newest.modified_at, _read(place, token, newest.key)))
    return leases


def _read(place: ClusterStore, token: str, key: str) -> Lease | None:
    with place.store.open(key) as stream:
        return Lease.parse(token, stream.read(_MAX_LEASE_BYTES))


def possible_leases(place: ClusterStore) -> list[StoredLease]:
    """Return the leases whose holders are not known to have ended. No clock is asked: it may be wrong.

    Raises: StoreError.
    """
    return [found for found in find_leases(place) if not is_over(found)]


def spent_keys(leases: Sequence[StoredLease]) -> list[str]:
    """Return the keys that protect nothing any more: a newer sign of life is there, or the holder has ended."""
    return [key for found in leases for key in (found.keys if is_over(found) else found.keys[:-1])]


def is_over(found: StoredLease) -> bool:
    """Say whether the holder of a lease is known to have ended, whatever the time."""
    return found.lease is not None and (found.lease.ended or is_dead(found.lease.identity))


def needed_backups(leases: Sequence[StoredLease]) -> frozenset[str]:
    """Return the base backups that these leases protect: those being stored, and the chains on which they build."""
    known = [found.lease for found in leases if found.lease is not None]
    ids = {one.backup_id for one in known if one.backup_id is not None}
    return frozenset(ids.union(*(one.needs for one in known)))
