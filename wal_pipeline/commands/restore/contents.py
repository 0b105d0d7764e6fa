"""Gathers what a restore plan needs from the stores: names from lists, commit times from a few HEADs."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import CommitTimes, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.restore_plan import RestorePlan
from wal_pipeline.archive.recovery.timeline_path import Run, runs_of
from wal_pipeline.commands.archive_get.tail_wal import PiecesDamagedError
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.inventory.histories import read_histories
from wal_pipeline.commands.inventory.listing import StoreListing, list_store
from wal_pipeline.commands.inventory.manifests import with_reports
from wal_pipeline.commands.inventory.overtaken import look_again
from wal_pipeline.commands.inventory.system_identifiers import choose_system_identifier, system_identifiers
from wal_pipeline.commands.inventory.tails import TailReader, read_tails_of
from wal_pipeline.commands.inventory.whole_copies import DamagedWholeCopy, WholeCopies
from wal_pipeline.commands.inventory.wholeness import BackupFaultKind
from wal_pipeline.errors import RecoveryTargetError, RestoreError, StoreError, WalPipelineError
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.joint import read_joints
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name, require_file_name, segment_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header

_HEADS_AT_ONCE: Final = 8
_MOST_HEADS: Final = 512  # of segments whose joints are compared before a restore
_NEAR: Final = 8  # segments on each side of a switch of timelines
_LARGEST_OPENED: Final = 64 << 20
_LONGEST_LOOK_BACK: Final = 512  # segments without a commit before the last one: an idle cluster's
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RestoreInventory:
    """All that a plan is made from. ``manifests`` by backup id; ``answered`` are the stores that could be listed.

    ``records``, ``source``, ``tails`` and ``copies`` read what else a plan needs.
    """

    contents: ArchiveContents
    manifests: dict[str, BaseBackupManifest]
    answered: tuple[Store, ...]
    notes: tuple[str, ...]
    records: "_Records"
    source: WalSource
    tails: TailReader
    copies: WholeCopies

    def checked_plan(self, make: Callable[[ArchiveContents], RestorePlan]) -> RestorePlan:
        """Make a plan, and make it again while it replays what continues nothing, or counts on what is damaged.

        That is a damaged piece, or a damaged copy of a whole segment (see ``WholeCopies``). Where nothing replaces it,
        the plan ends before it, and recovery goes no further.

        Raises: RecoveryTargetError where no plan is left; WalUnreachableError where a store does not give its pieces.
        """
        refused: dict[str, str] = {}
        contents = self.copies.without(self.contents, refused) if self.copies.damaged else self.contents
        notes = [str(one) for one in self.copies.damaged]
        while True:
            plan = _made(make, contents, notes)
            found = self.copies.look_at(plan)
            further = self.copies.refused_after(plan, contents).items() - refused.items()
            if found or further:
                self.records.leave_out(found)
                refused |= {} if found else dict(further)
                contents = self.copies.without(contents, refused)
                notes += [str(one) for one in found]
                continue
            files = {**contents.files, **self.records.with_joints([file.name for file in plan.wal], self.source)}
            checked = contents.with_files(files.values())
            try:
                breaks = self.tails.breaks_in(plan, checked)
            except PiecesDamagedError as error:
                contents = checked.without_pieces(error.damaged)
                notes += [f"{fault.message}: this piece is left out of the plan" for fault in error.faults]
                continue
            checked = replace(checked, breaks={**checked.breaks, **breaks})
            if checked.breaks == contents.breaks:
                return replace(plan, notes=(*plan.notes, *dict.fromkeys(notes)))
            contents = checked


def _made(
    make: Callable[[ArchiveContents], RestorePlan], contents: ArchiveContents, notes: Sequence[str]
) -> RestorePlan:
    """Make a plan; where there is none, the error says also what was left out."""
    try:
        return make(contents)
    except RecoveryTargetError as error:
        said = [f"{note}." for note in dict.fromkeys(notes)]
        error.hint = " ".join([*([] if error.hint is None else [error.hint]), *said]) or None
        raise


def gather(
    stores: Sequence[Store], layout: Layout, at: datetime | None, identities: Sequence[Any] = ()
) -> RestoreInventory:
    """List the stores, and read the commit times that a plan to the moment ``at`` (None: to another target) needs.

    A store that does not answer is left out with a note. Segments that later ones have overtaken on their way are
    looked for again. Raises: RestoreError where none answers.
    """
    listings, notes = _list(stores, layout)
    answered = tuple(store for store in stores if store.name in listings)
    if not answered:
        raise RestoreError("no store could be listed:\n" + "\n".join(notes))
    notes += _broken_backups(listings.values())
    source = WalSource(layout, answered, tuple(identities))
    histories, faults = read_histories(listings.values(), source)
    whole = _whole_backups(listings)
    manifests = with_reports(manifest for _, manifest in whole)
    places = {store.name: ClusterStore(store, layout) for store in answered}
    listings, arriving = look_again(listings, places, _segment_size(manifests.values()))
    records = _Records(listings, answered, _segment_size(manifests.values()))
    files = records.needed(at)
    tails, unread = read_tails_of(listings, places)
    contents = ArchiveContents.of(
        layout.system_identifier,
        files=files,
        copies={name: frozenset(listing.wal) for name, listing in listings.items()},
        backups=[_held(one, whole) for one in manifests.values()],
        histories=histories,
        arriving=arriving,
        tails=tails,
    )
    notes = [*notes, *faults, *unread]
    copies = WholeCopies(dict(listings), source)
    return RestoreInventory(contents, manifests, answered, tuple(notes), records, source, TailReader(source), copies)


def _list(stores: Sequence[Store], layout: Layout) -> tuple[dict[str, StoreListing], list[str]]:
    found: dict[str, StoreListing] = {}
    notes: list[str] = []
    with ThreadPoolExecutor(max(1, len(stores)), thread_name_prefix="inventory") as pool:
        listings = [(store, pool.submit(list_store, ClusterStore(store, layout))) for store in stores]
    for store, listing in listings:
        try:
            found[store.name] = listing.result()
        except StoreError as error:
            notes.append(f"{error.message}: this store is left out of the plan")
    return found, notes


def _broken_backups(listings: Iterable[StoreListing]) -> list[str]:
    """Say which base backups are left out, and why; one without a manifest does not exist."""
    return [
        f"{listing.store}: {fault.reason}: this copy is left out of the plan"
        for listing in listings
        for fault in listing.faults.values()
        if fault.kind is not BackupFaultKind.UNFINISHED
    ]


def _whole_backups(listings: Mapping[str, StoreListing]) -> list[tuple[str, BaseBackupManifest]]:
    """Return each store with each base backup that is whole on it."""
    return [
        (store, manifest)
        for store, listing in listings.items()
        for backup_id, manifest in listing.manifests.items()
        if listing.is_whole(backup_id)
    ]


def _held(manifest: BaseBackupManifest, whole: Sequence[tuple[str, BaseBackupManifest]]) -> HeldBackup:
    return HeldBackup(manifest.record(), frozenset(store for store, other in whole if other == manifest))


def _segment_size(manifests: Iterable[BaseBackupManifest]) -> int | None:
    sizes = sorted((one.finished_at, one.wal_segment_size) for one in manifests)
    return sizes[-1][1] if sizes else None


@dataclass(slots=True)
class _Records:
    """Reads segments' records from their objects' metadata: those that decide where a plan ends, not all of them."""

    listings: Mapping[str, StoreListing]
    stores: tuple[Store, ...]
    wal_segment_size: int | None
    _read: dict[str, WalFile | None] = field(default_factory=dict)
    _left_out: set[tuple[str, str]] = field(default_factory=set)

    def leave_out(self, damaged: Iterable[DamagedWholeCopy]) -> None:
        """Believe no longer what these copies say of themselves."""
        for one in damaged:
            self._left_out.add((one.store, one.object_key))
            self._read.pop(one.name, None)

    def needed(self, at: datetime | None) -> list[WalFile]:
        """Return the records around ``at``, and at the end of each run of segments."""
        self.wal_segment_size = self.wal_segment_size or self._size_of_newest()
        if self.wal_segment_size is None:
            return []
        self._read_histories()
        for timeline, runs in self._runs(self.wal_segment_size).items():
            for run in runs:
                self._read_back(timeline, run)
                if at is not None:
                    self._read_around(timeline, run, at)
        return self.files()

    def with_joints(self, names: Sequence[str], source: WalSource) -> dict[str, WalFile]:
        """Return the records of segments, in the order of their replay, with what each says that it continues.

        Of very many, only those at the ends and around each switch of timelines are read. Where an object's metadata
        does not say it, as in archives of earlier versions, the segments on both sides of a switch are opened.
        """
        parsed = [require_file_name(name) for name in names]
        switches = {index for index, (one, after) in enumerate(pairwise(parsed)) if one.timeline != after.timeline}
        near = {at for index in switches for at in range(index - _NEAR, index + _NEAR + 2)}
        chosen = [
            name
            for index, name in enumerate(parsed)
            if index in near or index < _MOST_HEADS // 2 or index >= len(parsed) - _MOST_HEADS // 2
        ]
        missing = [name for name in chosen if name.name not in self._read]
        with ThreadPoolExecutor(_HEADS_AT_ONCE, thread_name_prefix="head") as pool:
            for name, file in zip(missing, pool.map(self._head, missing), strict=True):
                self._read[name.name] = file
        for at in sorted({at for index in switches for at in (index, index + 1)}):
            self._open_unrecorded(parsed[at], source)
        return {name.name: file for name in chosen if (file := self._read[name.name]) is not None}

    def _open_unrecorded(self, name: WalFileName, source: WalSource) -> None:
        """Read what a segment continues from its own pages, where its object does not say it."""
        file = self._read[name.name]
        if file is None or file.joints is not None or file.size_bytes > _LARGEST_OPENED:
            return
        try:
            fetched = source.fetch(name)
            if fetched is not None:
                header = parse_long_page_header(name.name, fetched.data[:LONG_HEADER_BYTES])
                self._read[name.name] = replace(file, joints=read_joints(fetched.data, header, name.timeline))
        except WalPipelineError:
            return  # it is not compared; the recovery will say what is wrong with it

    def _read_histories(self) -> None:
        """Read when each timeline began: its history file came then."""
        parsed = (parse_file_name(name) for one in self.listings.values() for name in one.wal if ".history" in name)
        for name in {one for one in parsed if one is not None and one.kind is FileKind.HISTORY}:
            self._read[name.name] = self._head(name)

    def _runs(self, size: int) -> dict[int, list[Run]]:
        """Return the runs of each timeline, on each store alone and on any store: a plan may be for any of them."""
        numbers: dict[int, dict[str, set[int]]] = {}
        for name in set[str]().union(*(listing.wal for listing in self.listings.values())):
            file = parse_file_name(name)
            if file is not None and file.kind is FileKind.SEGMENT:
                number = file.number(size)
                for store in (store for store, listing in self.listings.items() if name in listing.wal):
                    numbers.setdefault(file.timeline, {}).setdefault(store, set()).add(number)
        return {
            timeline: sorted(
                {run for some in (*by_store.values(), set().union(*by_store.values())) for run in runs_of(sorted(some))}
            )
            for timeline, by_store in numbers.items()
        }

    def _read_back(self, timeline: int, run: Run) -> None:
        """Read from a run's end back to its last segment with a commit."""
        last, step = run[1], 1
        while last >= max(run[0], run[1] - _LONGEST_LOOK_BACK):
            numbers = range(max(run[0], last - step + 1), last + 1)
            files = self._files(timeline, numbers)
            if any(file is not None and file.last_commit_at is not None for file in files):
                return
            last, step = last - step, min(step * 4, 64)

    def _size_of_newest(self) -> int | None:
        """Return the segment size of an archive without a base backup, as its newest segment's object says it."""
        parsed = (parse_file_name(name) for listing in self.listings.values() for name in listing.wal)
        names = [one for one in parsed if one is not None and one.kind is FileKind.SEGMENT]
        newest = None if not names else self._head(max(names, key=lambda one: one.order))
        return None if newest is None else newest.wal_segment_size

    def files(self) -> list[WalFile]:
        """Return the records that were read so far."""
        return [file for file in self._read.values() if file is not None]

    def first_after(self, timeline: int, run: Run, at: datetime) -> int:
        """Return the first segment of a run with a commit after ``at``, by halving; without one, the run's end plus 1.

        A segment whose commit times are not known, nor those of any after it, may have one.
        """
        index = bisect_right(range(run[0], run[1] + 1), at, key=lambda number: self._last_commit(timeline, run, number))
        return run[0] + index

    def _read_around(self, timeline: int, run: Run, at: datetime) -> None:
        """Read the first segment with a commit after ``at``, and what is just before it."""
        found = self.first_after(timeline, run, at)
        self._files(timeline, range(max(run[0], found - 1), min(run[1], found + 1) + 1))
        self._read_back(timeline, (run[0], min(found, run[1])))

    def _last_commit(self, timeline: int, run: Run, number: int) -> datetime:
        """Return the last commit time in a segment or, where it has none, in the nearest one after it."""
        for later in range(number, min(run[1], number + _LONGEST_LOOK_BACK) + 1):
            file = self._files(timeline, [later])[0]
            if file is not None and file.commit_times is CommitTimes.KNOWN and file.last_commit_at is not None:
                return file.last_commit_at
        return _END_OF_TIME

    def _files(self, timeline: int, numbers: Iterable[int]) -> list[WalFile | None]:
        size = self.wal_segment_size or 0
        names = [segment_name(timeline, number, size) for number in numbers]
        missing = [name for name in names if name.name not in self._read]
        with ThreadPoolExecutor(_HEADS_AT_ONCE, thread_name_prefix="head") as pool:
            for name, file in zip(missing, pool.map(self._head, missing), strict=True):
                self._read[name.name] = file
        return [self._read[name.name] for name in names]

    def _head(self, name: WalFileName) -> WalFile | None:
        """Read one segment's record from any store; None where none has a record that can be read."""
        copies = (
            (store, item.key)
            for store in self.stores
            for item in self.listings[store.name].wal.get(name.name, ())
            if (store.name, item.key) not in self._left_out
        )
        for store, key in copies:
            try:
                found = store.head(key)
                if found is not None:
                    return from_metadata(key, found.metadata)[0]
            except WalPipelineError:
                continue  # the times are then unknown, and the plan says so
        return None


def find_system_identifier(stores: Sequence[Store], prefix: str, cluster: str, given: int | None) -> int:
    """Return which cluster to restore: ``given``, which a store must know, or the only one.

    Raises: RestoreError, SettingsError, StoreError.
    """
    answers: dict[str, set[int]] = {}
    silent: list[StoreError] = []
    for store in stores:
        try:
            answers[store.name] = system_identifiers(store, prefix, cluster)
        except StoreError as error:
            silent.append(error)
    if not answers and silent:
        raise silent[0]
    return choose_system_identifier(answers, prefix, cluster, given)
