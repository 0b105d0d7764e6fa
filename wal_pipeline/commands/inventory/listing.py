"""Lists one store below one system identifier, in ranges at the same time, and says what is not as it should be."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise, takewhile
from typing import Final, TypeVar

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest, is_backup_id
from wal_pipeline.archive.format.base_backup.report import REPORT_NAME
from wal_pipeline.archive.format.keys import MANIFEST_NAME, Layout, WalKeyReader
from wal_pipeline.commands.inventory.manifests import read_base_backup, read_with_report
from wal_pipeline.commands.inventory.wholeness import BackupFault, find_fault, unfinished, unreadable
from wal_pipeline.errors import LaterFormatError, StoreAccessError, StoreError, WalPipelineError
from wal_pipeline.stores.base import Store, StoredObject, StoredVersion
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name

_LISTED_AT_ONCE: Final = 4
_READ_AT_ONCE: Final = 4
_FILES_OF_A_RANGE: Final = 10_000
_Listed = TypeVar("_Listed", StoredObject, StoredVersion)


@dataclass(frozen=True, slots=True)
class HiddenVersions:
    """Versions that no listing shows and the store bills: their bytes by key, and when the newest of a key was put.

    ``error``: they could not be listed.
    """

    size_bytes: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    newest_at: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        """The bytes of all of them."""
        return sum(self.size_bytes.values())


@dataclass(frozen=True, slots=True)
class StoreListing:
    """One listing of one store below one system identifier. Nothing that is there is left out.

    ``wal`` has the objects of each file, as a rule one. ``base`` has the objects of each base backup by their names,
    with or without a manifest. ``manifests`` could be read. ``faults`` say why a base backup is not whole, by its id:
    one without a manifest, with one that cannot be read, or that lacks objects. ``others`` are the objects that we
    never make. ``pieces`` has the objects of each segment's pieces, by the segment's name, ``relations`` those of each
    list of relations, by its moment. ``hidden`` are the versions that a delete without a version only hid, or that
    another put covered; empty unless they were asked for.
    """

    store: str
    wal: Mapping[str, tuple[StoredObject, ...]]
    base: Mapping[str, Mapping[str, StoredObject]]
    manifests: Mapping[str, BaseBackupManifest]
    faults: Mapping[str, BackupFault]
    others: tuple[StoredObject, ...] = ()
    hidden: HiddenVersions = field(default_factory=HiddenVersions)
    pieces: Mapping[str, tuple[StoredObject, ...]] = field(default_factory=dict)
    relations: Mapping[str, tuple[StoredObject, ...]] = field(default_factory=dict)

    def size_of(self, name: str) -> int:
        """Return the stored bytes of a file's objects."""
        return sum(item.size_bytes for item in self.wal.get(name, ()))

    def is_whole(self, backup_id: str) -> bool:
        """Whether a base backup's manifest is there and all its objects have the sizes that it says."""
        return backup_id in self.base and backup_id not in self.faults

    @property
    def finished(self) -> list[str]:
        """The base backups that have a manifest, whether or not it can be read, oldest first."""
        return _finished(self.base)


class ObjectSorter:
    """Sorts objects below one system identifier by what their keys say; they may come in any order."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.others: list[StoredObject] = []
        self._keys = WalKeyReader(layout)
        self._wal: dict[str, tuple[StoredObject, ...]] = {}
        self._base: dict[str, dict[str, StoredObject]] = {}
        self._pieces: dict[str, tuple[StoredObject, ...]] = {}
        self._relations: dict[str, tuple[StoredObject, ...]] = {}

    @property
    def has_ours(self) -> bool:
        """Whether any object is of WAL or of a base backup, which alone say that a cluster is archived here."""
        return bool(self._wal or self._base or self._pieces)

    def add(self, item: StoredObject) -> bool:
        """Take one object, and say whether it is of the WAL archive."""
        name = self._keys.name(item.key)
        if name is not None:
            self._wal[name] = (*self._wal[name], item) if name in self._wal else (item,)
            return True
        backup_id = self.layout.backup_id_of(item.key)
        if backup_id is not None and is_backup_id(backup_id):
            self._base.setdefault(backup_id, {})[item.key.rsplit("/", 1)[-1]] = item
        elif (piece := self.layout.parse_piece_key(item.key)) is not None:
            segment = piece.piece.segment.name
            self._pieces[segment] = (*self._pieces.get(segment, ()), item)
        elif (listed := self.layout.parse_relations_key(item.key)) is not None:
            self._relations[listed.moment] = (*self._relations.get(listed.moment, ()), item)
        elif self.layout.parse_lease_key(item.key) is None:
            self.others.append(item)
        return False

    @property
    def finished(self) -> list[str]:
        """The base backups that have a manifest, oldest first."""
        return _finished(self._base)

    def listing(self, store: Store, hidden: HiddenVersions) -> StoreListing:
        """Read the base backups' manifests and return the listing of all objects taken. Raises: StoreError."""
        manifests, faults = _read_manifests(ClusterStore(store, self.layout), self._base)
        others = tuple(self.others)
        return StoreListing(
            store.name, self._wal, self._base, manifests, faults, others, hidden, self._pieces, self._relations
        )


def list_store(place: ClusterStore, cuts: Sequence[str] = (), *, with_hidden: bool = False) -> StoreListing:
    """List one store below one system identifier, and read the manifests.

    ``cuts`` are ascending keys between which it is listed at the same time; see ``cuts_of``. They change nothing in
    what is found. ``with_hidden`` lists hidden versions too, where the store keeps any.

    Raises: StoreError.
    """
    sorter = ObjectSorter(place.layout)
    objects, hidden = _objects(place.store, place.layout.root, cuts, with_hidden=with_hidden)
    for item in objects:
        sorter.add(item)
    return sorter.listing(place.store, hidden)


def list_base_backups(place: ClusterStore) -> StoreListing:
    """List the base backups of one store alone, and read their manifests. Raises: StoreError."""
    sorter = ObjectSorter(place.layout)
    for item in place.store.list(place.layout.base_root):
        sorter.add(item)
    return sorter.listing(place.store, HiddenVersions())


def list_backup_ids(place: ClusterStore) -> list[str]:
    """Return the base backups that have a manifest, oldest first; no manifest is read. Raises: StoreError."""
    sorter = ObjectSorter(place.layout)
    for item in place.store.list(place.layout.base_root):
        sorter.add(item)
    return sorter.finished


def _finished(base: Mapping[str, Mapping[str, StoredObject]]) -> list[str]:
    return sorted(backup_id for backup_id, found in base.items() if MANIFEST_NAME in found)


def cuts_of(layout: Layout, counts: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Return keys that part the WAL archive into ranges of about as many files.

    ``counts`` are the numbers of segments by the first sixteen digits of their names, ascending. They may be wrong:
    then the ranges are of other sizes.
    """
    cuts = []
    files = 0
    for log, count in counts:
        if files >= _FILES_OF_A_RANGE:
            cuts.append(layout.wal_stem(require_file_name(f"{log}00000000")))
            files = 0
        files += count
    return tuple(cuts)


def _objects(
    store: Store, prefix: str, cuts: Sequence[str], *, with_hidden: bool
) -> tuple[Iterable[StoredObject], HiddenVersions]:
    """List what is there and what is hidden: in one pass, since an archive of years takes hundreds of pages."""

    def objects(start_after: str) -> Iterator[StoredObject]:
        return store.list(prefix, start_after=start_after)

    def versions(start_after: str) -> Iterator[StoredVersion]:
        return store.versions(prefix, start_after=start_after)

    if not with_hidden or not store.keeps_versions:
        return _in_ranges(objects, cuts), HiddenVersions()
    shown: list[StoredObject] = []
    hidden: dict[str, int] = {}
    newest_at: dict[str, datetime] = {}
    try:
        for version in _in_ranges(versions, cuts):
            if version.is_delete_marker:
                continue
            if version.is_latest:
                shown.append(StoredObject(version.key, version.size_bytes, version.modified_at))
            else:
                hidden[version.key] = hidden.get(version.key, 0) + version.size_bytes
                newest_at[version.key] = max(version.modified_at, newest_at.get(version.key, version.modified_at))
    except StoreAccessError as error:  # a key that may list objects and not their versions
        return _in_ranges(objects, cuts), HiddenVersions(error=error.message)
    return shown, HiddenVersions(hidden, newest_at=newest_at)


def _in_ranges(ask: Callable[[str], Iterator[_Listed]], cuts: Sequence[str]) -> list[_Listed]:
    """Return all that ``ask`` lists after the key that it is given, asked for range by range at the same time.

    A range begins after a cut and ends with the next one, so that each key is in exactly one of them: the same as one
    listing from the start to the end. A store far away, or a server on the same machine, works while we read.

    Raises: StoreError.
    """

    def range_of(start_after: str, last: str | None) -> list[_Listed]:
        found = ask(start_after)
        return list(found if last is None else takewhile(lambda one: one.key <= last, found))

    ranges = pairwise(["", *cuts, None])
    with ThreadPoolExecutor(_LISTED_AT_ONCE, thread_name_prefix="list") as pool:
        answers = [pool.submit(range_of, begin or "", end) for begin, end in ranges]
        try:
            return [one for answer in answers for one in answer.result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read_manifests(
    place: ClusterStore, base: Mapping[str, Mapping[str, StoredObject]]
) -> tuple[dict[str, BaseBackupManifest], dict[str, BackupFault]]:
    """Read base backups' manifests, several at a time; return them, and why base backups are not whole, by id.

    Raises: StoreError.
    """

    def read(backup_id: str) -> BaseBackupManifest | BackupFault:
        if MANIFEST_NAME not in base[backup_id]:
            return unfinished(backup_id)
        try:
            read_it = read_with_report if REPORT_NAME in base[backup_id] else read_base_backup
            return read_it(place, backup_id)
        except StoreError:
            raise
        except WalPipelineError as error:
            return unreadable(error.message, is_later=isinstance(error, LaterFormatError))

    names = sorted(base)
    with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="list-manifest") as pool:
        found = dict(zip(names, pool.map(read, names), strict=True))
    manifests = {name: one for name, one in found.items() if isinstance(one, BaseBackupManifest)}
    faults = {name: one for name, one in found.items() if isinstance(one, BackupFault)}
    judged = ((name, find_fault(one, base[name])) for name, one in manifests.items())
    return manifests, faults | {name: fault for name, fault in judged if fault is not None}
