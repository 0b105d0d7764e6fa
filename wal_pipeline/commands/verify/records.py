"""Writes the outcome of a verification into the catalog and the alerts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from wal_pipeline.archive.alerts import AlertKind, Observation, Severity
from wal_pipeline.archive.records import Copy, CopyStatus, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.gaps import find_breaks
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.settle import settle_seen
from wal_pipeline.commands.continuity.archived import record_breaks
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.commands.verify.read_copy import ReadCopy
from wal_pipeline.commands.verify.results import Fault, FaultKind, Item, ItemKind, Tally
from wal_pipeline.text import counted
from wal_pipeline.wal.names import FileKind

if TYPE_CHECKING:
    from wal_pipeline.commands.verify.results import Verification

_MOST_TOLD: Final = 20
_TOLD_BY_ITSELF: Final = 500


def record_read(catalog: Catalog, survey: ClusterSurvey, store: str, items: Sequence[Item], at: datetime) -> None:
    """Record that the content of these copies was read and is right. Raises: CatalogError."""
    names = [item.name for item in items if item.kind is ItemKind.WAL_FILE]
    if names:
        identifier = survey.layout.system_identifier
        catalog.files.set_status(identifier, names, store, CopyStatus.VERIFIED, deep_verified_at=at)
    for item in items:
        if item.kind is ItemKind.BASE_BACKUP:
            _record_backup(catalog, survey, (store, item.name), CopyStatus.VERIFIED, read_at=at)


def breaks_found(catalog: Catalog, survey: ClusterSurvey, read: Mapping[Item, ReadCopy]) -> list[str]:
    """Compare the segments that were read with each other, record which continue nothing, and say which are open.

    Those that are recorded from before count too. Raises: CatalogError.
    """
    contents, identifier = survey.contents, survey.layout.system_identifier
    files = [one.file for item, one in read.items() if item.system_identifier == identifier and one.file is not None]
    compared = ArchiveContents.of(
        identifier,
        files=[*files, *(file for name, file in contents.files.items() if name not in {one.name for one in files})],
        copies=contents.copies,
        backups=contents.backups.values(),
        histories=contents.histories,
    )
    names = {file.name for file in files if _was_compared(compared, file)}
    breaks = record_breaks(catalog, identifier, names, compared.breaks)
    found = find_breaks(replace(compared, breaks=breaks))
    return [
        f"'{one.segment}' is there, and no recovery passes into it: {one.reason}" for one in found if not one.closed_by
    ]


def _was_compared(contents: ArchiveContents, file: WalFile) -> bool:
    """Whether the segment before a segment was read too."""
    if file.kind is not FileKind.SEGMENT or file.joints is None or file.timeline not in contents.paths:
        return False
    number = contents.number(file.name) - 1
    path = contents.paths[file.timeline]
    before = contents.segments.get(path.owner(number), {}).get(number) if number >= path.stretches[0].first else None
    return before is not None and before.joints is not None


def record_faults(catalog: Catalog, survey: ClusterSurvey, faults: Sequence[Fault]) -> None:
    """Record which copies are missing or damaged. Raises: CatalogError."""
    identifier = survey.layout.system_identifier
    _record_unrecorded(catalog, survey, faults)
    together: dict[tuple[str, CopyStatus], list[str]] = {}
    for number, fault in enumerate(faults):
        status = CopyStatus.MISSING if fault.kind is FaultKind.MISSING else CopyStatus.DAMAGED
        if fault.item.kind is ItemKind.BASE_BACKUP:
            _record_backup(catalog, survey, (fault.store, fault.item.name), status, error=fault.message)
        elif number < _TOLD_BY_ITSELF:
            catalog.files.set_status(identifier, [fault.item.name], fault.store, status, last_error=fault.message)
        else:  # a store that lost everything: one statement, not one for each file
            together.setdefault((fault.store, status), []).append(fault.item.name)
    for (store, status), names in together.items():
        error = f"{store}: {status.value}, as the last verification found"
        catalog.files.set_status(identifier, names, store, status, last_error=error)


def _record_unrecorded(catalog: Catalog, survey: ClusterSurvey, faults: Sequence[Fault]) -> None:
    """Record bad copies of recorded files that have no record on their store, as after 'catalog rebuild'.

    Only what is recorded is shown: in Dagster such a copy would stay what it was before the records were lost.
    """
    records, identifier = survey.records, survey.layout.system_identifier
    new = [
        Copy(fault.item.name, identifier, fault.store, CopyStatus.MISSING, "", None)
        for fault in faults
        if fault.item.kind is ItemKind.WAL_FILE
        and fault.item.name in records.files
        and records.copy(fault.store, fault.item.name) is None
    ]
    if new:
        catalog.files.record_found([], new)


def record_found_again(catalog: Catalog, survey: ClusterSurvey, faulty: set[tuple[str, Item]]) -> None:
    """Record the base backups that were missing or incomplete and are whole again. Raises: CatalogError."""
    identifier = survey.layout.system_identifier
    for (store, backup_id), copy in survey.records.backups.items():
        there = store in survey.listings and survey.listings[store].is_whole(backup_id)
        item = Item(identifier, ItemKind.BASE_BACKUP, backup_id)
        if copy.status is CopyStatus.MISSING and there and (store, item) not in faulty:
            _record_backup(catalog, survey, (store, backup_id), CopyStatus.VERIFIED)


def _record_backup(
    catalog: Catalog,
    survey: ClusterSurvey,
    place: tuple[str, str],
    status: CopyStatus,
    *,
    error: str | None = None,
    read_at: datetime | None = None,
) -> None:
    """Record a base backup's copy at a place: a store and an id. What was never recorded stays so."""
    copy, backup = survey.records.backups.get(place), survey.records.base_backups.get(place[1])
    if copy is None or backup is None:
        return
    sound = status is CopyStatus.VERIFIED
    changed = replace(
        copy,
        status=status,
        last_error=error,
        last_deep_verified_at=read_at or copy.last_deep_verified_at,
        restorable_at=copy.restorable_at if sound else None,
    )
    catalog.base_backups.record(backup, [changed])


def settle_alerts(catalog: Catalog, done: "Verification", now: datetime) -> None:
    """Open alerts for what is wrong, one for each store and one for each item that is lost; resolve the others.

    What concerns a store that did not answer stays as it is. Raises: CatalogError.
    """
    silent = done.silent.keys()
    others = [fault for fault in done.open_faults if fault.kind is FaultKind.OTHER_CONTENT]
    healable = [fault for fault in done.open_faults if fault.item not in done.lost and fault not in others]
    damage = [*_by_store(healable), *_with_other_content(others), *_lost(done), *_of_pieces(done), *_of_lists(done)]
    settle_seen(catalog, AlertKind.DAMAGE, damage, now, silent=silent)
    settle_seen(catalog, AlertKind.CATALOG_BEHIND, _unrecorded(done.tallies), now, silent=silent)


def _by_store(faults: Sequence[Fault]) -> list[Observation]:
    by_store: dict[str, list[Fault]] = {}
    for fault in faults:
        by_store.setdefault(fault.store, []).append(fault)
    return [
        Observation(
            store,
            f"{len(some)} copies on {store} are missing or damaged; 'wal-pipeline verify --repair' refills them "
            f"from another store; first: {some[0].message}",
            Severity.WARNING,
            {"copies": [fault.message for fault in some[:_MOST_TOLD]]},
        )
        for store, some in sorted(by_store.items())
    ]


def _with_other_content(faults: Sequence[Fault]) -> list[Observation]:
    return [
        Observation(
            f"{fault.store}/{fault.item.system_identifier}/{fault.item.name}",
            f"{fault.message}: both copies are whole, so a person has to say which one is right; "
            "remove the other one from its store, and 'wal-pipeline verify --repair' refills it",
            Severity.CRITICAL,
        )
        for fault in faults[:_MOST_TOLD]
    ]


def _lost(done: "Verification") -> list[Observation]:
    items = sorted(done.lost, key=lambda item: (item.kind, item.name))
    where = "no store that answered" if done.silent else "no store"
    told = [
        Observation(
            f"every store/{item.system_identifier}/{item.name}",
            f"{where} has a good copy of '{item.name}'",
            Severity.CRITICAL,
            {"copies": [fault.message for fault in done.open_faults if fault.item == item]},
        )
        for item in items[:_MOST_TOLD]
    ]
    if len(items) > _MOST_TOLD:
        rest = f"{where} has a good copy of {len(items) - _MOST_TOLD} more files or base backups"
        told.append(Observation("every store/others", rest, Severity.CRITICAL))
    return told


def _of_pieces(done: "Verification") -> list[Observation]:
    """Say what a loss of the database's host would cost: the pieces are all that the stores have of an open segment."""
    found: dict[str, list[str]] = {}
    for fault in done.open_piece_faults:
        found.setdefault(f"{fault.store}/pieces", []).append(fault.message)
    if done.holes:
        found["every store/pieces"] = list(done.holes)
    return [
        Observation(
            subject,
            f"{counted(len(some), 'fault')} in the pieces of open segments: a recovery after a loss of the database's "
            "host ends before them, until their segment is archived; restart 'wal-pipeline ship', which sends again "
            f"what it does not find whole; first: {some[0]}",
            Severity.WARNING,
            {"pieces": some[:_MOST_TOLD]},
        )
        for subject, some in sorted(found.items())
    ]


def _of_lists(done: "Verification") -> list[Observation]:
    """Say what lacks without a list: no recovery needs it, but the names of what was deleted."""
    found: dict[str, list[str]] = {}
    for fault in done.open_list_faults:
        found.setdefault(f"{fault.store}/relations", []).append(fault.message)
    return [
        Observation(
            subject,
            f"{counted(len(some), 'fault')} in the lists of relations: tables may be shown by their numbers; "
            f"'wal-pipeline verify --repair' copies a list from another store; first: {some[0]}",
            Severity.WARNING,
            {"lists": some[:_MOST_TOLD]},
        )
        for subject, some in sorted(found.items())
    ]


def _unrecorded(tallies: Mapping[str, Tally]) -> list[Observation]:
    return [
        Observation(
            store,
            f"{len(tally.unrecorded)} copies on {store} are not in the catalog; "
            "'wal-pipeline catalog rebuild' makes the records again",
            details={"copies": tally.unrecorded[:_MOST_TOLD]},
        )
        for store, tally in sorted(tallies.items())
        if tally.unrecorded
    ]
