"""The records of an archiving run that nothing waits for, written together so that they cost little."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Final

from wal_pipeline.catalog.catalog import Catalog

_HOLD_SECONDS: Final = 1.0


class LateRecords:
    """Counts of tries, and which files left the spool.

    Each transaction costs a flush of the disk, so these are kept for up to a second. A crash loses that second of
    them: the counts are for people, and that a file has left the spool is seen in the spool.
    """

    def __init__(self, catalog: Catalog, clock: Callable[[], datetime]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._succeeded: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._released: defaultdict[int, list[str]] = defaultdict(list)
        self._written = time.monotonic()

    def tried(self, store: str, *, succeeded: bool) -> None:
        """Count one try to store a file."""
        (self._succeeded if succeeded else self._failed)[store] += 1

    def released(self, system_identifier: int, name: str) -> None:
        """Note that a file was removed from the spool."""
        self._released[system_identifier].append(name)

    def write_if_due(self) -> None:
        """Write what is held where that is older than a second. Raises: CatalogError."""
        if time.monotonic() - self._written >= _HOLD_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is held. Raises: CatalogError."""
        now = self._clock()
        for store in sorted(self._succeeded.keys() | self._failed.keys()):
            counts = {"succeeded": self._succeeded.pop(store, 0), "failed": self._failed.pop(store, 0)}
            self._catalog.stores.count_events(store, now, **counts)
        while self._released:
            system_identifier, names = self._released.popitem()
            self._catalog.files.mark_released(system_identifier, names, now)
        self._written = time.monotonic()
