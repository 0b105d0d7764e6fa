"""Lists the spool's files that some store lacks, in archiving order, with the catalog's records of each."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from wal_pipeline.archive.records import Copy, CopyStatus, WalFile
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.spool import Spool, SpoolFile, SpoolListing

LOOK_UP_NAMES = 1000
_MIN_RESCAN_SECONDS = 0.25
_RESCAN_SHARE = 20  # list a large spool again only after twenty times as long as listing and looking up took


@dataclass(frozen=True, slots=True)
class Recorded:
    """The catalog's records of one name: for each system identifier the file and its copies by store."""

    files: Mapping[int, WalFile] = field(default_factory=dict)
    copies: Mapping[int, Mapping[str, Copy]] = field(default_factory=dict)

    def verified(self, system_identifier: int) -> dict[str, Copy]:
        """Return the verified copies of that cluster's file, by store.

        One that a rebuilt catalog knows by its size alone has no ``verified_at``: it is read before it counts.
        """
        copies = self.copies.get(system_identifier, {})
        return {
            store: copy
            for store, copy in copies.items()
            if copy.status is CopyStatus.VERIFIED and copy.verified_at is not None
        }

    def with_copies(self, owed: Collection[tuple[WalFile, Copy]]) -> "Recorded":
        """Return the same with copies that the catalog could not be told of yet."""
        files, copies = dict(self.files), {key: dict(by_store) for key, by_store in self.copies.items()}
        for file, copy in owed:
            files[file.system_identifier] = file
            copies.setdefault(file.system_identifier, {})[copy.store] = copy
        return Recorded(files, copies)

    def is_stored(self, system_identifier: int) -> bool:
        """Whether some store holds that cluster's file, as far as is known."""
        copies = self.copies.get(system_identifier, {}).values()
        return any(copy.status is CopyStatus.VERIFIED for copy in copies)

    def held_by(self, current: int) -> frozenset[str]:
        """Return the stores that most likely hold the file: of the ``current`` cluster, else of the one recorded.

        Which cluster a file in the spool is of is known once it is read.
        """
        likely = [current] if current in self.files else list(self.copies)
        return frozenset(store for system_identifier in likely for store in self.verified(system_identifier))


def look_up(catalog: Catalog, names: Collection[str]) -> dict[str, Recorded]:
    """Return what the catalog knows of these names."""
    files: dict[str, dict[int, WalFile]] = {name: {} for name in names}
    copies: dict[str, dict[int, Mapping[str, Copy]]] = {name: {} for name in names}
    for (system_identifier, name), file in catalog.files.files_of(names).items():
        files[name][system_identifier] = file
    for (system_identifier, name), by_store in catalog.files.copies_of(names).items():
        copies[name][system_identifier] = by_store
    return {name: Recorded(files[name], copies[name]) for name in names}


class FileQueue:
    """Files in archiving order; what the catalog knows of them is looked up in bulk as they come to the head."""

    def __init__(self, look_up_names: Callable[[Collection[str]], dict[str, Recorded]]) -> None:
        self._look_up = look_up_names
        self._files: deque[SpoolFile] = deque()
        self._records: dict[str, Recorded] = {}

    def __len__(self) -> int:
        return len(self._files)

    def fill(self, files: Iterable[SpoolFile]) -> None:
        """Hold these files instead, and forget what was looked up."""
        self._files = deque(files)
        self._records = {}

    def append(self, file: SpoolFile) -> None:
        """Put a file at the end."""
        self._files.append(file)

    @property
    def head(self) -> SpoolFile:
        """The next file."""
        return self._files[0]

    def recorded(self) -> Recorded:
        """Return what the catalog knew of the head when it was looked up. Raises: CatalogError."""
        name = self.head.name.name
        if name not in self._records:
            names = dict.fromkeys(file.name.name for file in islice(self._files, LOOK_UP_NAMES))
            self._records = self._look_up(names)
        return self._records[name]

    def pop(self) -> SpoolFile:
        """Take the head out until the spool is listed again."""
        file = self._files.popleft()
        self._records.pop(file.name.name, None)
        return file


class Backlog:
    """The files of the spool that wait, in archiving order. Holds little of each, however many there are.

    ``waiting`` are those to look at next; ``postponed`` those that only stores which are behind still lack.
    """

    def __init__(
        self,
        spool: Spool,
        catalog: Catalog,
        clock: Callable[[], datetime],
        owed: Callable[[str], Collection[tuple[WalFile, Copy]]] = lambda _name: (),
    ) -> None:
        """``owed`` gives the copies of a file that the catalog could not be told of yet."""
        self._owed = owed
        self._spool = spool
        self._catalog = catalog
        self._clock = clock
        self._changed_ns = -1
        self._scanned_at = float("-inf")
        self._cost_seconds = 0.0
        self._stale = True
        self._seen: set[str] = set()
        self._owners: dict[str, int] = {}
        self._skipped: dict[str, tuple[SpoolFile, float]] = {}
        self.listing = SpoolListing((), (), ())
        self.waiting = FileQueue(self._timed_look_up)
        self.postponed = FileQueue(self._timed_look_up)

    def mark_stale(self) -> None:
        """List the spool again as soon as that is due: something may have changed for a file that was passed over."""
        self._stale = True

    def refresh(self, busy: Collection[str]) -> tuple[str, ...]:
        """List the spool if something changed, leaving out the names that are ``busy``; return the new names.

        Raises: SpoolError.
        """
        begun = time.monotonic()
        if begun < self._scanned_at + max(_MIN_RESCAN_SECONDS, _RESCAN_SHARE * self._cost_seconds):
            return ()
        changed_ns = self._spool.changed_ns()
        may_grow = self.listing.growing or self._skipped  # a file that grows does not change its folder
        if changed_ns == self._changed_ns and not self._stale and not may_grow:
            return ()
        self.listing = self._spool.scan(self._clock())
        ready = self.listing.ready
        self._skipped = {file.name.name: left for file in ready if (left := self._still_left(file, begun))}
        self.waiting.fill(file for file in ready if file.name.name not in busy and file.name.name not in self._skipped)
        self.postponed.fill(())
        self._changed_ns, self._stale = changed_ns, False
        names = [file.name.name for file in ready]
        new = tuple(name for name in names if name not in self._seen)
        self._seen = set(names)
        self._owners = {name: owner for name, owner in self._owners.items() if name in self._seen}
        self._scanned_at = time.monotonic()
        self._cost_seconds = self._scanned_at - begun
        return new

    @property
    def is_unsure(self) -> bool:
        """Whether the spool is to be listed again before it can be said that nothing waits."""
        return self._stale or bool(len(self.waiting) or len(self.postponed))

    @property
    def is_empty(self) -> bool:
        """Whether no file of PostgreSQL's lay in the spool when it was listed last."""
        return not self.listing.ready and not self.listing.growing

    def take_all(self) -> list[SpoolFile]:
        """Take every file off the list until the spool is listed again."""
        return [self.waiting.pop() for _ in range(len(self.waiting))]

    def leave(self, file: SpoolFile, seconds: float = float("inf")) -> None:
        """Pass a file over until it has changed or settled, or so long."""
        self._skipped[file.name.name] = (file, time.monotonic() + seconds)

    def _still_left(self, file: SpoolFile, now: float) -> tuple[SpoolFile, float] | None:
        left = self._skipped.get(file.name.name)
        return left if left is not None and left[0] == file and now < left[1] else None

    def note_owner(self, name: str, system_identifier: int) -> None:
        """Remember the cluster of a file that was read: the same name may be recorded for another one."""
        self._owners[name] = system_identifier

    def verified(self, file: SpoolFile, recorded: Recorded, current: int) -> frozenset[str]:
        """Return the stores that hold the file, taken for one of the ``current`` cluster until it was read."""
        return frozenset(recorded.verified(self._owners.get(file.name.name, current)))

    def _timed_look_up(self, names: Collection[str]) -> dict[str, Recorded]:
        begun = time.monotonic()
        found = look_up(self._catalog, names)
        owed = {name: copies for name in names if (copies := self._owed(name))}
        found |= {name: found[name].with_copies(copies) for name, copies in owed.items()}
        self._cost_seconds += time.monotonic() - begun
        return found
