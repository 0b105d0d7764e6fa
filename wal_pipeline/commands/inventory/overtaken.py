"""Looks again for segments that later ones have overtaken on their way to a store: they are no gap."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from wal_pipeline.archive.recovery.timeline_path import runs_of
from wal_pipeline.commands.inventory.listing import StoreListing
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.base import StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import FileKind, parse_file_name, require_file_name, segment_name

ON_ITS_WAY_FOR: Final = timedelta(minutes=10)  # an upload with its tries is mostly over by then
_LOOKS: Final = 2
_SECONDS_BETWEEN: Final = 1.0
_MOST_SEGMENTS: Final = 64  # more are not in flight at the same time


def look_again(
    listings: Mapping[str, StoreListing], places: Mapping[str, ClusterStore], wal_segment_size: int | None
) -> tuple[dict[str, StoreListing], frozenset[str]]:
    """Look again for segments that may be on their way; return the listings with those that have come, and the others.

    Segments are stored side by side, so that a later one may be stored first. A missing segment may be on its way where
    the next one that the store has came within the last ten minutes.
    """
    found = dict(listings)
    for _ in range(_LOOKS):
        if not _missing_lately(found, wal_segment_size):
            return found, frozenset()
        time.sleep(_SECONDS_BETWEEN)
        for store, names in _missing_lately(found, wal_segment_size).items():
            found[store] = _with_come(found[store], places[store], names)
    return found, frozenset(name for names in _missing_lately(found, wal_segment_size).values() for name in names)


def _missing_lately(listings: Mapping[str, StoreListing], size: int | None) -> dict[str, list[str]]:
    """Return by store the names of the segments that it lacks, before one that came lately."""
    since_at = datetime.now(UTC) - ON_ITS_WAY_FOR
    lacks = {store: list(_holes(listing, size, since_at)) if size else [] for store, listing in listings.items()}
    return {store: names for store, names in lacks.items() if names}


def _holes(listing: StoreListing, size: int, since_at: datetime) -> Iterable[str]:
    numbers: dict[int, list[int]] = {}
    for name in listing.wal:
        file = parse_file_name(name)
        if file is not None and file.kind is FileKind.SEGMENT:
            numbers.setdefault(file.timeline, []).append(file.number(size))
    for timeline, some in numbers.items():
        for (_, last), (after, _) in pairwise(runs_of(sorted(some))):
            stored = listing.wal[segment_name(timeline, after, size).name]
            if after - last <= _MOST_SEGMENTS and max(one.modified_at for one in stored) >= since_at:
                yield from (segment_name(timeline, number, size).name for number in range(last + 1, after))


def _with_come(listing: StoreListing, place: ClusterStore, names: Sequence[str]) -> StoreListing:
    try:
        come = {name: tuple(_objects(place, name)) for name in names}
    except StoreError:
        return listing
    return replace(listing, wal={**listing.wal, **{name: items for name, items in come.items() if items}})


def _objects(place: ClusterStore, name: str) -> Collection[StoredObject]:
    stem = place.layout.wal_stem(require_file_name(name))
    parsed = ((item, place.layout.parse_wal_key(item.key)) for item in place.store.list(stem))
    return [item for item, stored in parsed if stored is not None and stored.file.name == name]
