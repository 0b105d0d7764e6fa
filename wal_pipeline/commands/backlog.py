"""What the spool holds that some store does not: listed in archiving order, with what the catalog knows of it."""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from wal_pipeline.archive.records import Copy, CopyStatus, WalFile
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.spool import Spool, SpoolFile, SpoolListing

LOOK_UP_NAMES = 1000
_MIN_RESCAN_SECONDS = 0.25
_RESCAN_SHARE = 20  # list a large spool again only after twenty times as long as listing it took


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the catalog knows of one name: for each system identifier the file and its copies by store."""

    files: Mapping[int, WalFile] = field(default_factory=dict)
    copies: Mapping[int, Mapping[str, Copy]] = field(default_factory=dict)

    def verified(self, system_identifier: int) -> dict[str, Copy]:
        """Return the copies of that cluster's file whose stored bytes were read and compared, by store.

        A copy that a rebuild of the catalog found is known by its metadata alone, and has no ``verified_at``.
        """
        copies = self.copies.get(system_identifier, {})
        return {
            store: copy
            for store, copy in copies.items()
            if copy.status is CopyStatus.VERIFIED and copy.verified_at is not None
        }

    def verified_anywhere(self) -> frozenset[str]:
        """Return the stores that hold the file of any one cluster; which one is known once it is read."""
        return frozenset(store for system_identifier in self.copies for store in self.verified(system_identifier))


def look_up(catalog: Catalog, names: Collection[str]) -> dict[str, Recorded]:
    """Return what the catalog knows of these names."""
    files: dict[str, dict[int, WalFile]] = {name: {} for name in names}
    copies: dict[str, dict[int, Mapping[str, Copy]]] = {name: {} for name in names}
    for (system_identifier, name), file in catalog.files.files_of(names).items():
        files[name][system_identifier] = file
    for (system_identifier, name), by_store in catalog.files.copies_of(names).items():
        copies[name][system_identifier] = by_store
    return {name: Recorded(files[name], copies[name]) for name in names}


class Backlog:
    """The files of the spool that wait, in archiving order. Holds little of each, however many there are."""

    def __init__(self, spool: Spool, catalog: Catalog, clock: Callable[[], datetime]) -> None:
        self._spool = spool
        self._catalog = catalog
        self._clock = clock
        self._waiting: deque[SpoolFile] = deque()
        self._records: dict[str, Recorded] = {}
        self._changed_ns = -1
        self._scan_at = 0.0
        self._stale = True
        self._seen: set[str] = set()
        self.listing = SpoolListing((), (), ())

    def mark_stale(self) -> None:
        """List the spool again as soon as that is due: something may have changed for a file that was passed over."""
        self._stale = True

    def refresh(self, busy: Collection[str]) -> tuple[str, ...]:
        """List the spool if something changed, leaving out the names that are ``busy``; return the new names.

        Raises: SpoolError.
        """
        if time.monotonic() < self._scan_at:
            return ()
        changed_ns = self._spool.changed_ns()
        if changed_ns == self._changed_ns and not self._stale and not self.listing.growing:
            return ()
        begun = time.monotonic()
        self.listing = self._spool.scan(self._clock())
        self._waiting = deque(file for file in self.listing.ready if file.name.name not in busy)
        self._records = {}
        self._changed_ns, self._stale = changed_ns, False
        ended = time.monotonic()
        self._scan_at = ended + max(_MIN_RESCAN_SECONDS, _RESCAN_SHARE * (ended - begun))
        names = [file.name.name for file in self.listing.ready]
        new = tuple(name for name in names if name not in self._seen)
        self._seen = set(names)
        return new

    def peek(self) -> SpoolFile | None:
        """Return the next file that waits, and leave it there."""
        return self._waiting[0] if self._waiting else None

    def pop(self) -> None:
        """Take the next file off the list until it is listed again."""
        self._waiting.popleft()

    def recorded(self, name: str) -> Recorded:
        """Return what the catalog knew of a name that waits when it was looked up. Raises: CatalogError."""
        if name not in self._records:
            names = [name, *(file.name.name for file in islice(self._waiting, LOOK_UP_NAMES))]
            self._records = look_up(self._catalog, dict.fromkeys(names))
        return self._records[name]
