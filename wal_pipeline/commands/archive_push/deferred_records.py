"""The records of an archiving run that nothing waits for, and those that a full disk kept from being written."""

import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from wal_pipeline.archive.records import Copy, WalFile
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.errors import CatalogFullError

_HOLD_SECONDS: Final = 1.0
_MOST_OWED: Final = 10_000
_log = logging.getLogger(__name__)


class DeferredRecords:
    """Counts of tries, which files left the spool, and what is owed to a catalog whose disk is full.

    Each transaction costs a flush of the disk, so the first two are kept for up to a second. A crash loses that second
    of them: the counts are for people, and that a file has left the spool is seen in the spool.

    Spool and catalog may lie on one disk. When it is full, only releasing files makes room, so a release must not wait
    for a record: the record is owed, and written once there is room. A crash loses what is owed: the stores hold it,
    a verification misses it, and ``catalog rebuild`` makes it again from their objects.
    """

    def __init__(self, catalog: Catalog, clock: Callable[[], datetime]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._succeeded: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._released: defaultdict[int, list[str]] = defaultdict(list)
        self._written = time.monotonic()
        self._owed: deque[Callable[[], None]] = deque()
        self._owed_copies: defaultdict[str, list[tuple[WalFile, Copy]]] = defaultdict(list)

    def copy(self, file: WalFile, copy: Copy) -> float:
        """Record what became of a copy, as ``keep`` does; return the seconds that it took."""
        begun = time.monotonic()
        self.keep(partial(self._catalog.files.record_verified, file, [copy]))
        if self._owed:
            self._owed_copies[file.name].append((file, copy))
        return time.monotonic() - begun

    def owed(self, name: str) -> Sequence[tuple[WalFile, Copy]]:
        """Return what became of a file's copies that the catalog does not know of yet."""
        return self._owed_copies.get(name, ())

    def keep(self, write: Callable[[], None]) -> None:
        """Write a record now, or owe it where the catalog's disk is full; in the order in which they are given.

        Raises: CatalogError; CatalogFullError where too many are owed already.
        """
        if len(self._owed) >= _MOST_OWED:
            self._pay()
        if not self._owed:
            try:
                write()
            except CatalogFullError as error:
                _log.warning("%s; what is recorded from now on is written when there is room", error.message)
            else:
                return
        self._owed.append(write)

    def tried(self, store: str, *, succeeded: bool) -> None:
        """Count one try to store a file."""
        (self._succeeded if succeeded else self._failed)[store] += 1

    def released(self, system_identifier: int, name: str) -> None:
        """Note that a file was removed from the spool: that made room for what is owed. Raises: CatalogError."""
        self._released[system_identifier].append(name)
        if self._owed:
            self._try_to_write()

    def write_if_due(self) -> None:
        """Write what is held where that is older than a second. Raises: CatalogError, but not for a full disk."""
        if time.monotonic() - self._written >= _HOLD_SECONDS:
            self._try_to_write()

    def write(self) -> None:
        """Write what is owed and held. Raises: CatalogError, CatalogFullError."""
        self._pay()
        now = self._clock()
        for store in sorted(self._succeeded.keys() | self._failed.keys()):
            counts = {"succeeded": self._succeeded[store], "failed": self._failed[store]}
            self._catalog.stores.count_events(store, now, **counts)
            self._succeeded.pop(store, None)
            self._failed.pop(store, None)
        for system_identifier, names in list(self._released.items()):
            self._catalog.files.mark_released(system_identifier, names, now)
            del self._released[system_identifier]
        self._written = time.monotonic()

    def _try_to_write(self) -> None:
        try:
            self.write()
        except CatalogFullError:
            self._written = time.monotonic()  # it is tried again after the next release, or in a second

    def _pay(self) -> None:
        while self._owed:
            try:
                self._owed[0]()
            except CatalogFullError as error:
                raise CatalogFullError(
                    f"{error.message}; {len(self._owed)} records of this run could not be written",
                    hint="Make room on that disk, then type 'wal-pipeline catalog rebuild': it adds what is missing "
                    "from the stores, which hold every file that left the spool.",
                ) from error
            self._owed.popleft()
        self._owed_copies.clear()
