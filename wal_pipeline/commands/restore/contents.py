"""What the stores hold, as far as a restore plan needs it: names from lists, commit times from a few HEADs."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import CommitTimes, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.timeline_path import Run, runs_of
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.inventory.listing import StoredWal, StoreInventory, take_inventory
from wal_pipeline.commands.inventory.system_identifiers import choose_system_identifier, system_identifiers
from wal_pipeline.errors import RestoreError, StoreError, WalPipelineError
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.names import FileKind, WalFileName, history_name, segment_name
from wal_pipeline.wal.timeline import TimelineHistory

_HEADS_AT_ONCE: Final = 8
_LONGEST_LOOK_BACK: Final = 512  # segments without a commit before the last one: an idle cluster's
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RestoreInventory:
    """What a plan is made from. ``manifests`` by backup id; ``answered`` are the stores that could be listed."""

    contents: ArchiveContents
    manifests: dict[str, BaseBackupManifest]
    answered: tuple[Store, ...]
    notes: tuple[str, ...]


def gather(
    stores: Sequence[Store], layout: Layout, at: datetime | None, identities: Sequence[Any] = ()
) -> RestoreInventory:
    """List the stores, and read the commit times that a plan to the moment ``at`` (None: to another target) needs.

    A store that does not answer is left out with a note. Raises: RestoreError where none answers.
    """
    inventories, notes = _list(stores, layout)
    answered = tuple(store for store in stores if store.name in inventories)
    if not answered:
        raise RestoreError("no store could be listed:\n" + "\n".join(notes))
    notes += [fault for inventory in inventories.values() for fault in inventory.faults]
    histories, faults = _histories(inventories.values(), WalSource(layout, answered, tuple(identities)))
    manifests = {one.backup_id: one for inventory in inventories.values() for one in inventory.base_backups}
    files = _Records(inventories, answered, _segment_size(manifests.values())).needed(at)
    contents = ArchiveContents.of(
        layout.system_identifier,
        files=files,
        copies={name: inventory.wal_names for name, inventory in inventories.items()},
        backups=[_held(one, inventories) for one in manifests.values()],
        histories=histories,
    )
    return RestoreInventory(contents, manifests, answered, (*notes, *faults))


def _list(stores: Sequence[Store], layout: Layout) -> tuple[dict[str, StoreInventory], list[str]]:
    found: dict[str, StoreInventory] = {}
    notes: list[str] = []
    with ThreadPoolExecutor(max(1, len(stores)), thread_name_prefix="inventory") as pool:
        listings = [(store, pool.submit(take_inventory, store, layout)) for store in stores]
    for store, listing in listings:
        try:
            found[store.name] = listing.result()
        except StoreError as error:
            notes.append(f"{error.message}: this store is left out of the plan")
    return found, notes


def _held(manifest: BaseBackupManifest, inventories: dict[str, StoreInventory]) -> HeldBackup:
    on = (name for name, inventory in inventories.items() if manifest in inventory.base_backups)
    return HeldBackup(manifest.record(), frozenset(on))


def _segment_size(manifests: Iterable[BaseBackupManifest]) -> int | None:
    sizes = sorted((one.finished_at, one.wal_segment_size) for one in manifests)
    return sizes[-1][1] if sizes else None


def _histories(
    inventories: Iterable[StoreInventory], source: WalSource
) -> tuple[dict[int, TimelineHistory], list[str]]:
    timelines = {
        item.stored.file.timeline
        for inventory in inventories
        for item in inventory.wal
        if item.stored.file.kind is FileKind.HISTORY
    }
    found: dict[int, TimelineHistory] = {}
    faults: list[str] = []
    for timeline in sorted(timelines):
        name = history_name(timeline)
        try:
            fetched = source.fetch(name)
            if fetched is not None:
                found[timeline] = TimelineHistory.parse(timeline, fetched.data)
        except WalPipelineError as error:
            faults.append(error.message)
    return found, faults


@dataclass(slots=True)
class _Records:
    """Reads segments' records from their objects' metadata: those that decide where a plan ends, not all of them."""

    inventories: dict[str, StoreInventory]
    stores: tuple[Store, ...]
    wal_segment_size: int | None
    _copies: dict[str, list[StoredWal]] = field(default_factory=dict)
    _read: dict[str, WalFile | None] = field(default_factory=dict)

    def needed(self, at: datetime | None) -> list[WalFile]:
        """Return the records around ``at``, and at the end of each run of segments."""
        if self.wal_segment_size is None:
            return []
        for inventory in self.inventories.values():
            for item in inventory.wal:
                if item.stored.file.kind is FileKind.SEGMENT:
                    self._copies.setdefault(item.stored.file.name, []).append(item)
        for timeline, runs in self._runs(self.wal_segment_size).items():
            for run in runs:
                self._read_back(timeline, run)
                if at is not None:
                    self._read_around(timeline, run, at)
        return [file for file in self._read.values() if file is not None]

    def _runs(self, size: int) -> dict[int, list[Run]]:
        """Return the runs of each timeline, on each store alone and on all together: a plan may be for any of them."""
        numbers: dict[int, dict[str, set[int]]] = {}
        for items in self._copies.values():
            file = items[0].stored.file
            for item in items:
                numbers.setdefault(file.timeline, {}).setdefault(item.store, set()).add(file.number(size))
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

    def _read_around(self, timeline: int, run: Run, at: datetime) -> None:
        """Find the first segment with a commit after ``at`` by halving, and read what is just before it."""
        index = bisect_right(range(run[0], run[1] + 1), at, key=lambda number: self._last_commit(timeline, run, number))
        found = run[0] + index
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
        stores = {store.name: store for store in self.stores}
        for item in self._copies.get(name.name, []):
            try:
                found = stores[item.store].head(item.key)
                if found is not None:
                    return from_metadata(item.key, found.metadata)[0]
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
