"""Works out the recovery windows of each store, and of any store, from the catalog."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.archive.records import BaseBackup, CopyStatus
from wal_pipeline.archive.recovery.branches import Branch, branches_of, living_notes
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.gaps import Break, Gap, GapState, LedgerEntry, find_breaks, find_gaps, gap_ledger
from wal_pipeline.archive.recovery.reach import CLOCK_TOLERANCE, CommitsBeyond, is_ahead, recorded_beyond
from wal_pipeline.archive.recovery.tail import HeldPiece
from wal_pipeline.archive.recovery.unread_wal import unread_wal_note
from wal_pipeline.archive.recovery.window import RecoveryWindow, windows_by_store
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.measures import SegmentRecords
from wal_pipeline.commands.continuity.archived import known_breaks
from wal_pipeline.commands.ship.records import read_tails
from wal_pipeline.errors import CatalogError, InvalidWalFileError, WalPipelineError
from wal_pipeline.wal.names import FileKind, WalFileName, history_name, parse_file_name
from wal_pipeline.wal.timeline import TimelineHistory

FetchText = Callable[[int, WalFileName], bytes | None]
"""Fetch a history file of a system identifier from a store; None where no store has it."""
_ASK_AGAIN: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class CurrentWindows:
    """The recovery windows at one moment.

    ``windows`` and ``gaps`` by store, and under None those of any store. ``main_timeline`` is the newest
    timeline. ``backups`` are the base backups that some store holds whole, the oldest first. ``notes`` name both ends
    of timelines that are written to side by side, the timeline history files that could not be read, and WAL that this
    program does not read. ``branches`` are the timelines that went on beside the newest one, ``breaks`` the segments
    that continue nothing. ``beyond`` is what the records say of the commits after the end of each store's ``main``
    window.
    """

    system_identifier: int | None
    stores: tuple[str, ...]
    main_timeline: int | None
    windows: Mapping[str | None, tuple[RecoveryWindow, ...]]
    gaps: Mapping[str | None, tuple[LedgerEntry, ...]]
    backups: tuple[BaseBackup, ...]
    holders: Mapping[str, frozenset[str]]
    notes: tuple[str, ...] = ()
    branches: tuple[Branch, ...] = ()
    breaks: tuple[Break, ...] = ()
    beyond: Mapping[str | None, CommitsBeyond] = field(default_factory=dict)

    def main(self, store: str | None) -> RecoveryWindow | None:
        """Return the window of a store (None: of any store) that leads to the newest moment.

        It is on the newest timeline, unless an older one is still written to long after the newest has ended.
        """
        outlived = next((branch.timeline for branch in self.branches if branch.has_outlived), None)
        of_store = self.windows.get(store, ())
        on_main = [one for one in of_store if outlived is not None and one.timeline == outlived]
        on_main = on_main or [one for one in of_store if one.left_at_lsn is None]
        return max(on_main, key=lambda one: (one.latest_lsn, one.timeline), default=None)

    @property
    def open_breaks(self) -> tuple[Break, ...]:
        """The segments that continue nothing, and after which no base backup can be restored."""
        return tuple(one for one in self.breaks if one.closed_by is None)

    def open_gaps(self, store: str | None) -> tuple[Gap, ...]:
        """Return the open gaps of a store (None: of any store): those that a person must look at."""
        return self.gaps_in(store, GapState.OPEN)

    def gaps_in(self, store: str | None, state: GapState) -> tuple[Gap, ...]:
        """Return the gaps of a store (None: of any store) that are in a state."""
        return tuple(entry.gap for entry in self.gaps.get(store, ()) if entry.state is state)

    @property
    def latest_commit_at(self) -> datetime | None:
        """The last commit that some store can bring back; a lower bound where commit times are not known."""
        window = self.main(None)
        return None if window is None else window.latest_commit_at_least


def current_windows(
    catalog: Catalog,
    stores: Sequence[str],
    *,
    system_identifier: int | None = None,
    fetch: FetchText | None = None,
) -> CurrentWindows:
    """Work out the windows of the cluster that was seen last, or of ``system_identifier``.

    ``fetch`` reads a timeline history file that the catalog does not hold yet; it is asked once per file.

    Raises: CatalogError.
    """
    known = catalog.system_identifiers.known()
    chosen = system_identifier if system_identifier is not None else (known[-1] if known else None)
    names = catalog.measures.names_by_store(chosen) if chosen is not None else {}
    if chosen is None or not any(names.values()):
        empty: dict[str | None, tuple[RecoveryWindow, ...]] = dict.fromkeys((None, *stores), ())
        return CurrentWindows(chosen, tuple(stores), None, empty, dict.fromkeys((None, *stores), ()), (), {})
    histories, notes = _histories(catalog, chosen, names, fetch)
    contents = _contents(catalog, chosen, {store: names.get(store, []) for store in stores}, histories)
    branches = branches_of(contents)
    current = CurrentWindows(
        system_identifier=chosen,
        stores=tuple(stores),
        main_timeline=contents.main.timeline if contents.main else None,
        windows=windows_by_store(contents),
        gaps=_gaps(catalog, contents),
        backups=tuple(held.backup for held in contents.backups.values()),
        holders={backup_id: held.stores for backup_id, held in contents.backups.items()},
        notes=tuple(note for note in (*living_notes(branches), *notes, unread_wal_note(contents)) if note is not None),
        branches=branches,
        breaks=find_breaks(contents),
    )
    mains = ((store, current.main(store)) for store in current.windows)
    beyond = {store: recorded_beyond(contents, window) for store, window in mains if window is not None}
    return replace(current, beyond=beyond)


def with_waiting(windows: CurrentWindows, names: Collection[str]) -> CurrentWindows:
    """Return the windows with each open gap marked as on its way where all its segments are among ``names``.

    These wait in the spool: stores take files side by side, so that a later one may be stored first.
    """

    def looked_at(entry: LedgerEntry) -> LedgerEntry:
        is_waiting = entry.state is GapState.OPEN and entry.gap.is_among(names)
        return replace(entry, state=GapState.ON_ITS_WAY) if is_waiting else entry

    return replace(windows, gaps={store: tuple(map(looked_at, some)) for store, some in windows.gaps.items()})


def current_contents(catalog: Catalog, stores: Sequence[str], system_identifier: int) -> ArchiveContents:
    """Return one system identifier's archive as the catalog knows it; records are read when they are needed.

    Raises: CatalogError.
    """
    names = catalog.measures.names_by_store(system_identifier)
    histories, _ = _histories(catalog, system_identifier, names, None)
    return _contents(catalog, system_identifier, {store: names.get(store, []) for store in stores}, histories)


def _contents(
    catalog: Catalog, system_identifier: int, names: Mapping[str, list[str]], histories: dict[int, TimelineHistory]
) -> ArchiveContents:
    newest = catalog.files.newest(system_identifier)
    recorded = catalog.files.files_of([history_name(timeline).name for timeline in histories])
    begun = [file for (identifier, _), file in recorded.items() if identifier == system_identifier]
    contents = ArchiveContents.of(
        system_identifier,
        files=begun if newest is None else [*begun, newest],
        copies=names,
        backups=_held(catalog, system_identifier, frozenset(names)),
        histories=histories,
        breaks=known_breaks(catalog, system_identifier),
        tails=_shipped(catalog, names),
    )
    size = contents.wal_segment_size
    segments = {
        timeline: SegmentRecords(catalog.measures, system_identifier, timeline, size, ()) for timeline in contents.paths
    }
    return replace(contents, segments=segments)


def _shipped(catalog: Catalog, stores: Iterable[str]) -> list[HeldPiece]:
    """Return the pieces that were recorded when they were shipped."""
    return [
        HeldPiece(one.piece, store, f"{one.piece.segment.name}/{one.piece.from_offset:08X}-{one.piece.to_offset:08X}")
        for store, tail in read_tails(catalog.values, stores).items()
        for one in tail.pieces
    ]


def _held(catalog: Catalog, system_identifier: int, stores: frozenset[str]) -> list[HeldBackup]:
    holders: dict[str, set[str]] = {}
    for copy in catalog.base_backups.copies():
        if copy.status is CopyStatus.VERIFIED and copy.system_identifier == system_identifier and copy.store in stores:
            holders.setdefault(copy.backup_id, set()).add(copy.store)
    return [
        HeldBackup(backup, frozenset(holders[backup.backup_id]))
        for backup in catalog.base_backups.all()
        if backup.backup_id in holders and backup.system_identifier == system_identifier
    ]


def _gaps(catalog: Catalog, contents: ArchiveContents) -> dict[str | None, tuple[LedgerEntry, ...]]:
    accepted = catalog.gaps.acknowledged()
    found: dict[str | None, tuple[LedgerEntry, ...]] = {None: gap_ledger(contents, find_gaps(contents), accepted)}
    return found | {store: gap_ledger(contents, find_gaps(contents, [store]), accepted) for store in contents.stores}


def _histories(
    catalog: Catalog, system_identifier: int, names: Mapping[str, list[str]], fetch: FetchText | None
) -> tuple[dict[int, TimelineHistory], tuple[str, ...]]:
    """Return the timeline histories that the stores have files of, from the catalog or fetched and then kept there."""
    parsed = (parse_file_name(name) for some in names.values() for name in some if name.endswith(".history"))
    wanted = sorted(
        {name for name in parsed if name is not None and name.kind is FileKind.HISTORY}, key=lambda name: name.timeline
    )
    if not wanted:
        return {}, ()
    key = f"timeline_histories/{system_identifier}"
    kept: dict[str, str] = catalog.values.get(key) or {}
    notes: list[str] = []
    new: dict[str, str] = {}
    for name in wanted:
        if name.name in kept or fetch is None or _asked_lately(catalog, name):
            continue
        try:
            data = fetch(system_identifier, name)
        except WalPipelineError as error:
            notes.append(error.message)
            _note_asked(catalog, name)
        else:
            new |= {} if data is None else {name.name: data.hex()}
    if new:
        kept = kept | new
        catalog.values.put(key, kept)
    return _parsed(wanted, kept, notes), tuple(notes)


def _parsed(wanted: Sequence[WalFileName], kept: Mapping[str, str], notes: list[str]) -> dict[int, TimelineHistory]:
    found = {}
    for name in wanted:
        if name.name not in kept:
            notes.append(f"'{name.name}' is not read yet: WAL of the timelines before is not counted as its past")
            continue
        try:
            found[name.timeline] = TimelineHistory.parse(name.timeline, bytes.fromhex(kept[name.name]))
        except InvalidWalFileError as error:
            notes.append(error.message)
    return found


def _asked_lately(catalog: Catalog, name: WalFileName) -> bool:
    """Return whether a store failed to give the file just now: a screen must not wait for a dead store each time."""
    asked_at = catalog.values.get(f"asked/{name.name}")
    return asked_at is not None and abs(catalog.now() - datetime.fromisoformat(asked_at)) < _ASK_AGAIN


def _note_asked(catalog: Catalog, name: WalFileName) -> None:
    try:
        catalog.values.put(f"asked/{name.name}", catalog.now().isoformat())
    except CatalogError:
        return


def usable_backups(windows: CurrentWindows, store: str) -> list[BaseBackup]:
    """Return the base backups that can be restored from a store alone."""
    usable = {backup_id for window in windows.windows.get(store, ()) for backup_id in window.backup_ids}
    return [one for one in windows.backups if one.backup_id in usable]


def newest_finished_at(backups: Collection[BaseBackup], now: datetime) -> datetime | None:
    """Return the moment at which the newest base backup finished; None where none finished before now."""
    return max((one.finished_at for one in backups if not is_ahead(one.finished_at, now)), default=None)


def newest_id(backup_ids: Collection[str], now: datetime) -> str | None:
    """Return the id of the base backup that begins last in the WAL; of two in one segment the later one by the clock.

    An id is a time and the name of a segment.
    """
    latest = f"{now + CLOCK_TOLERANCE:%Y%m%dT%H%M%SZ}"

    def order(backup_id: str) -> tuple[str, bool, str]:
        time, _, segment = backup_id.partition("-")
        return segment, time <= latest, time

    return max(backup_ids, key=order, default=None)
