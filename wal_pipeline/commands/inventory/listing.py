"""What one store holds below one system identifier: listed in ranges at the same time, put in order by names."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Final, TypeVar

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest, is_backup_id
from wal_pipeline.archive.format.keys import (
    MANIFEST_NAME,
    Layout,
    StoredName,
    WalKeyReader,
)
from wal_pipeline.commands.inventory.manifests import list_base_backups, read_base_backup
from wal_pipeline.errors import (
    StoreAccessError,
    StoreError,
    WalPipelineError,
)
from wal_pipeline.stores.base import Store, StoredObject, StoredVersion
from wal_pipeline.wal.names import FileKind, require_file_name

_LISTED_AT_ONCE: Final = 4
_READ_AT_ONCE: Final = 4
_FILES_OF_A_RANGE: Final = 10_000
_Listed = TypeVar("_Listed", StoredObject, StoredVersion)


@dataclass(frozen=True, slots=True)
class HiddenVersions:
    """Versions that no listing shows and the store bills: their bytes by key. ``error``: they could not be listed."""

    size_bytes: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None

    @property
    def total_bytes(self) -> int:
        """The bytes of all of them."""
        return sum(self.size_bytes.values())


@dataclass(frozen=True, slots=True)
class StoreListing:
    """One listing of one store below one system identifier.

    ``wal`` has the objects of each file, as a rule one. ``base`` has the objects of each base backup by their names,
    with or without a manifest. ``manifests`` could be read; ``faults`` say why others could not, by backup id.
    ``hidden`` are the versions that a delete without a version only hid, or that another put covered.
    """

    store: str
    wal: Mapping[str, tuple[StoredObject, ...]]
    base: Mapping[str, Mapping[str, StoredObject]]
    manifests: Mapping[str, BaseBackupManifest]
    faults: Mapping[str, str]
    hidden: HiddenVersions = field(default_factory=HiddenVersions)

    def size_of(self, name: str) -> int:
        """Return the stored bytes of a file's objects."""
        return sum(item.size_bytes for item in self.wal.get(name, ()))

    def is_whole(self, backup_id: str) -> bool:
        """Whether a base backup's manifest is there and all its objects have the sizes that it says."""
        manifest, found = self.manifests.get(backup_id), self.base.get(backup_id, {})
        return manifest is not None and all(
            item.name in found and found[item.name].size_bytes == item.size_bytes for item in manifest.objects
        )


def list_store(store: Store, layout: Layout, cuts: Sequence[str] = ()) -> StoreListing:
    """List one store below one system identifier, and read the manifests.

    ``cuts`` are ascending keys between which it is listed at the same time; see ``cuts_of``. They change nothing in
    what is found.

    Raises: StoreError.
    """
    wal: dict[str, tuple[StoredObject, ...]] = {}
    base: dict[str, dict[str, StoredObject]] = {}
    objects, hidden = _objects(store, layout.root, cuts)
    keys = WalKeyReader(layout)
    for item in objects:
        name = keys.name(item.key)
        backup_id = layout.backup_id_of(item.key) if name is None else None
        if name is not None:
            wal[name] = (*wal[name], item) if name in wal else (item,)
        elif backup_id is not None and is_backup_id(backup_id):
            base.setdefault(backup_id, {})[item.key.rsplit("/", 1)[-1]] = item
    manifests, faults = _read_manifests(store, layout, [key for key, found in base.items() if MANIFEST_NAME in found])
    return StoreListing(store.name, wal, base, manifests, faults, hidden)


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


def _objects(store: Store, prefix: str, cuts: Sequence[str]) -> tuple[Iterable[StoredObject], HiddenVersions]:
    """List what is there and what is hidden: in one pass, since an archive of years takes hundreds of pages."""

    def objects(start_after: str) -> Iterator[StoredObject]:
        return store.list(prefix, start_after=start_after)

    def versions(start_after: str) -> Iterator[StoredVersion]:
        return store.versions(prefix, start_after=start_after)

    if not store.keeps_versions:
        return _in_ranges(objects, cuts), HiddenVersions()
    shown: list[StoredObject] = []
    hidden: dict[str, int] = {}
    try:
        for version in _in_ranges(versions, cuts):
            if version.is_delete_marker:
                continue
            if version.is_latest:
                shown.append(StoredObject(version.key, version.size_bytes, version.modified_at))
            else:
                hidden[version.key] = hidden.get(version.key, 0) + version.size_bytes
    except StoreAccessError as error:  # a key that may list objects and not their versions
        return _in_ranges(objects, cuts), HiddenVersions(error=error.message)
    return shown, HiddenVersions(hidden)


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
    with ThreadPoolExecutor(_LISTED_AT_ONCE, thread_name_prefix="survey-list") as pool:
        answers = [pool.submit(range_of, begin or "", end) for begin, end in ranges]
        try:
            return [one for answer in answers for one in answer.result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read_manifests(
    store: Store, layout: Layout, backup_ids: Iterable[str]
) -> tuple[dict[str, BaseBackupManifest], dict[str, str]]:
    """Read manifests, several at a time; return those that could be read, and why the others could not.

    Raises: StoreError.
    """

    def read(backup_id: str) -> BaseBackupManifest | str:
        try:
            return read_base_backup(store, layout, backup_id)
        except StoreError:
            raise
        except WalPipelineError as error:
            return error.message

    names = sorted(backup_ids)
    with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="survey-manifest") as pool:
        found = dict(zip(names, pool.map(read, names), strict=True))
    manifests = {name: one for name, one in found.items() if isinstance(one, BaseBackupManifest)}
    return manifests, {name: one for name, one in found.items() if isinstance(one, str)}


@dataclass(frozen=True, slots=True)
class StoredWal:
    """One copy of a file of the WAL archive on one store. ``size_bytes`` is as stored."""

    store: str
    key: str
    stored: StoredName
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoreInventory:
    """All of a cluster on one store: WAL in the order of keys, manifests in the order of time.

    ``faults`` say which base backups were left out, and why.
    """

    store: str
    wal: tuple[StoredWal, ...]
    base_backups: tuple[BaseBackupManifest, ...]
    faults: tuple[str, ...] = ()

    @property
    def wal_names(self) -> frozenset[str]:
        """The names of all files of the WAL archive here."""
        return frozenset(item.stored.file.name for item in self.wal)


def take_inventory(store: Store, layout: Layout) -> StoreInventory:
    """List a store. Raises: StoreError where the store itself does not answer."""
    manifests, faults = list_base_backups(store, layout)
    return StoreInventory(store.name, tuple(list_wal(store, layout)), manifests, faults)


def list_wal(store: Store, layout: Layout) -> Iterator[StoredWal]:
    """Yield every copy of a file of the WAL archive; objects that are not ours are passed over."""
    for item in store.list(layout.wal_root):
        stored = layout.parse_wal_key(item.key)
        if stored is not None:
            yield StoredWal(store.name, item.key, stored, item.size_bytes)


def history_files(wal: Iterable[StoredWal]) -> list[StoredWal]:
    """Return the timeline history files, in the order of timelines."""
    return sorted(
        (item for item in wal if item.stored.file.kind is FileKind.HISTORY),
        key=lambda item: item.stored.file.timeline,
    )
