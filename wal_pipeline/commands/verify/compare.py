"""Stores against each other and against the catalog, by names and sizes: a listing each, and nothing is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.archive.format.keys import MANIFEST_NAME
from wal_pipeline.archive.records import CopyStatus, KnownCopy
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.retention.plan import ObjectKind, plan_retention
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.commands.copies.stored_bytes import wrong_size
from wal_pipeline.commands.inventory.listing import StoreListing
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.commands.inventory.wholeness import BackupFaultKind
from wal_pipeline.commands.verify.results import Fault, FaultKind, Item, ItemKind, Tally
from wal_pipeline.errors import RetentionError
from wal_pipeline.stores.base import StoredObject

ON_ITS_WAY: Final = timedelta(hours=1)
BACKUP_ON_ITS_WAY: Final = timedelta(days=1)
_EVERY: Final = "every store"
_NOT_STORED: Final = (CopyStatus.PENDING, CopyStatus.FAILED)
_BACKUP_FAULTS: Final = {
    BackupFaultKind.UNFINISHED: FaultKind.MISSING,
    BackupFaultKind.UNREADABLE: FaultKind.UNREADABLE,
    BackupFaultKind.INCOMPLETE: FaultKind.MISSING,
    BackupFaultKind.WRONG_SIZE: FaultKind.TRUNCATED,
}


@dataclass(frozen=True, slots=True)
class Suspect:
    """A copy that has to be read before it is judged: ``fault`` is what it looks like."""

    fault: Fault
    key: str


@dataclass(frozen=True, slots=True)
class WantedCopies:
    """The names of files and the ids of base backups that every store should hold."""

    files: frozenset[str]
    backups: frozenset[str]


@dataclass(slots=True)
class Comparison:
    """The comparison of one system identifier by names and sizes. ``suspects`` are settled by reading them.

    What is not ``wanted`` waits for its expiry and is not judged.
    """

    wanted: WantedCopies
    faults: list[Fault] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)


class Comparer:
    """Compares the listings of one survey."""

    def __init__(
        self, survey: ClusterSurvey, rule: RetentionRule, now: datetime, in_spool: Callable[[str], bool | None]
    ) -> None:
        """``in_spool`` says whether a file waits in the spool; None where the spool is not at hand."""
        self._survey = survey
        self._now = now
        self._in_spool = in_spool
        self._wanted = wanted_everywhere(survey, rule, now)
        self._found = Comparison(self._wanted, tallies={name: Tally() for name in survey.listings})

    def compare(self) -> Comparison:
        """Compare everything."""
        for listing in self._survey.listings.values():
            self._compare_wal(listing)
            self._compare_backups(listing)
        return self._found

    def _compare_wal(self, listing: StoreListing) -> None:
        tally = self._found.tallies[listing.store]
        for name, objects in listing.wal.items():
            tally.items += 1
            tally.stored_bytes += sum(item.size_bytes for item in objects)
            recorded = self._survey.records.copy(listing.store, name)
            if recorded is None and self._now - max(item.modified_at for item in objects) > ON_ITS_WAY:
                tally.unrecorded.append(name)
            suspicion = None if recorded is None else _suspicion(objects, recorded)
            if suspicion is not None and name in self._wanted.files:
                fault = self._fault(listing, ItemKind.WAL_FILE, name, *suspicion)
                self._found.suspects.append(Suspect(fault, objects[0].key))
        for name in sorted(self._wanted.files - listing.wal.keys()):
            if self._is_pending(listing.store, name):
                tally.pending += 1
            else:
                text = f"'{name}' is not there"
                self._found.faults.append(self._fault(listing, ItemKind.WAL_FILE, name, FaultKind.MISSING, text))

    def _is_pending(self, store: str, name: str) -> bool:
        """Whether an absent copy is on its way: the archiver keeps its file in the spool until it is there."""
        waits = self._in_spool(name)
        recorded = self._survey.records.copy(store, name)
        if waits is not None and (waits or recorded is not None):
            return waits
        if recorded is not None:
            return recorded.status in _NOT_STORED
        stored_at = [item.modified_at for one in self._survey.listings.values() for item in one.wal.get(name, ())]
        return bool(stored_at) and self._now - max(stored_at) <= ON_ITS_WAY

    def _compare_backups(self, listing: StoreListing) -> None:
        tally = self._found.tallies[listing.store]
        records = self._survey.records.backups
        for backup_id in listing.finished:
            tally.items += 1
            tally.stored_bytes += sum(item.size_bytes for item in listing.base[backup_id].values())
            if backup_id in self._wanted.backups or backup_id not in listing.manifests:
                self._found.faults.extend(self._backup_faults(listing, backup_id))
            if (listing.store, backup_id) not in records and not self._is_new(backup_id):
                tally.unrecorded.append(backup_id)
        for backup_id in sorted(self._wanted.backups.difference(listing.finished)):
            if self._is_new(backup_id) and (listing.store, backup_id) not in records:
                tally.pending += 1
            else:
                text = f"base backup '{backup_id}' is not there"
                self._found.faults.append(
                    self._fault(listing, ItemKind.BASE_BACKUP, backup_id, FaultKind.MISSING, text)
                )

    def _backup_faults(self, listing: StoreListing, backup_id: str) -> Iterator[Fault]:
        """Yield the first fault of a base backup that is there."""
        fault = listing.faults.get(backup_id)
        if fault is not None:
            yield self._backup_fault(listing, backup_id, _BACKUP_FAULTS[fault.kind], fault.reason)
            return
        recorded = self._survey.records.backups.get((listing.store, backup_id))
        manifest = listing.manifests[backup_id]
        others = [one.manifests[backup_id] for one in self._survey.listings.values() if backup_id in one.manifests]
        if any(other != manifest for other in others):
            text = f"base backup '{backup_id}' has another manifest than on another store"
            yield self._backup_fault(listing, backup_id, FaultKind.REPLACED, text)
        elif recorded is not None and recorded.status is CopyStatus.DAMAGED:
            text = recorded.last_error or f"base backup '{backup_id}' is recorded as damaged"
            yield self._backup_fault(listing, backup_id, FaultKind.CORRUPT, text.removeprefix(f"{listing.store}: "))

    def _is_new(self, backup_id: str) -> bool:
        """Whether a base backup was just finished somewhere: other stores may be getting it now."""
        manifests = (one.base.get(backup_id, {}).get(MANIFEST_NAME) for one in self._survey.listings.values())
        at = [item.modified_at for item in manifests if item is not None]
        return bool(at) and self._now - max(at) <= BACKUP_ON_ITS_WAY

    def _backup_fault(self, listing: StoreListing, backup_id: str, kind: FaultKind, text: str) -> Fault:
        return self._fault(listing, ItemKind.BASE_BACKUP, backup_id, kind, text.removeprefix(f"{listing.store}: "))

    def _fault(self, listing: StoreListing, kind: ItemKind, name: str, fault: FaultKind, text: str) -> Fault:
        item = Item(self._survey.layout.system_identifier, kind, name)
        return Fault(item, listing.store, fault, f"{listing.store}: {text}")


def _suspicion(objects: tuple[StoredObject, ...], recorded: KnownCopy) -> tuple[FaultKind, str] | None:
    """Return what a copy looks like by its size and its record; None where it looks right."""
    first, sizes = objects[0], {item.size_bytes for item in objects}
    if recorded.size_bytes is not None and recorded.size_bytes not in sizes:
        return FaultKind.TRUNCATED, wrong_size(first.key, first.size_bytes, recorded.size_bytes)
    if recorded.status in (CopyStatus.DAMAGED, CopyStatus.MISSING):
        return FaultKind.CORRUPT, f"object '{first.key}' is recorded as {recorded.status.value}"
    return None


def wanted_everywhere(survey: ClusterSurvey, rule: RetentionRule, now: datetime) -> WantedCopies:
    """Return what the retention of a store with everything that any store has, or had, would keep.

    What expired on one store and not yet on another is missing nowhere: a repair would only bring back what the next
    expiry removes again.
    """
    recorded = {
        name
        for copies in survey.records.copies.values()
        for name, copy in copies.items()
        if copy.status not in _NOT_STORED
    }
    names = recorded.union(*(one.wal for one in survey.listings.values()))
    together = _together(survey, names)
    try:
        plan = plan_retention(together, _EVERY, now, rule, stored_bytes=dict.fromkeys(names, 0))
    except RetentionError:  # nothing expires anywhere then, and all of it is wanted
        return WantedCopies(frozenset(names), frozenset(together.backups))
    kept = {kind: frozenset(one.name for one in plan.keep if one.kind is kind) for kind in ObjectKind}
    return WantedCopies(kept[ObjectKind.WAL_FILE], kept[ObjectKind.BASE_BACKUP])


def _together(survey: ClusterSurvey, names: set[str]) -> ArchiveContents:
    """Return the archive as one store would hold it that has all that any store has, or is recorded to have had."""
    contents, records = survey.contents, survey.records
    stored = {backup_id for (_, backup_id), copy in records.backups.items() if copy.status not in _NOT_STORED}
    backups = {key: one for key, one in records.base_backups.items() if key in stored}
    backups |= {key: one.backup for key, one in contents.backups.items()}
    return ArchiveContents.of(
        contents.system_identifier,
        files=contents.files.values(),
        copies={_EVERY: names},
        backups=[HeldBackup(one, frozenset({_EVERY})) for one in backups.values()],
        histories=contents.histories,
    )
