"""Reads what one store's objects say of themselves, for a catalog that is made again."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from wal_pipeline.archive.format.keys import Layout, cluster_prefix, system_identifier_of
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import Encoding, WalFile
from wal_pipeline.commands.inventory.listing import HiddenVersions, ObjectSorter, StoreListing
from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.stores.base import Store, StoredObject
from wal_pipeline.wal.names import require_file_name

BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class ScannedWal:
    """One WAL object: where it is, its size in the store, and what its metadata says."""

    key: str
    size_bytes: int
    file: WalFile
    encoding: Encoding


@dataclass(slots=True)
class StoreScan:
    """One pass over a store below a cluster's name, which lists and reads metadata at the same time.

    First take all of ``wal``, then ``listings``. ``faults`` say which WAL objects could not be read.
    """

    store: Store
    prefix: str
    cluster: str
    on_object: Callable[[str], None]
    faults: list[str] = field(default_factory=list)
    _sorters: dict[int, ObjectSorter] = field(default_factory=dict)
    _outside: list[str] = field(default_factory=list)

    def wal(self, workers: int) -> Iterator[list[ScannedWal]]:
        """Yield the WAL objects in batches; ``workers`` of them are asked at once. Raises: StoreError."""
        with ThreadPoolExecutor(workers, thread_name_prefix=f"scan-{self.store.name}") as pool:
            listed = self._listed()
            while batch := list(islice(listed, BATCH)):
                yield [item for item in pool.map(lambda found: self._head(*found), batch) if item is not None]

    def listings(self) -> list[tuple[Layout, StoreListing]]:
        """Return a listing for each system identifier of which ``wal`` passed an object. Raises: StoreError."""
        return [(one.layout, one.listing(self.store, HiddenVersions())) for one in self._known()]

    @property
    def system_identifiers(self) -> set[int]:
        """The system identifiers of which an object was passed so far."""
        return {one.layout.system_identifier for one in self._known()}

    @property
    def foreign(self) -> list[str]:
        """The keys that were passed so far and that we never make, ascending."""
        return sorted(chain(self._outside, (item.key for one in self._sorters.values() for item in one.others)))

    def _known(self) -> list[ObjectSorter]:
        return [sorter for _, sorter in sorted(self._sorters.items()) if sorter.has_ours]

    def _listed(self) -> Iterator[tuple[StoredObject, Layout]]:
        for item in self.store.list(cluster_prefix(self.prefix, self.cluster)):
            self.on_object(self.store.name)
            system_identifier = system_identifier_of(self.prefix, self.cluster, item.key)
            if system_identifier is None:
                self._outside.append(item.key)
                continue
            sorter = self._sorters.get(system_identifier)
            if sorter is None:
                sorter = ObjectSorter(Layout(self.prefix, self.cluster, system_identifier))
                self._sorters[system_identifier] = sorter
            if sorter.add(item):
                yield item, sorter.layout

    def _head(self, item: StoredObject, layout: Layout) -> ScannedWal | None:
        found = self.store.head(item.key)
        if found is None:  # expired since it was listed
            return None
        try:
            file, encoding = from_metadata(item.key, found.metadata)
            _check_says_its_key(item.key, layout, file, encoding)
        except InvalidWalFileError as error:
            self.faults.append(f"{self.store.name}: {error.message}")
            return None
        return ScannedWal(item.key, found.size_bytes, file, encoding)


def _check_says_its_key(key: str, layout: Layout, file: WalFile, encoding: Encoding) -> None:
    """Refuse an object that was moved: its metadata must make the very key under which it lies."""
    said = layout.wal_key(require_file_name(file.name), encoding.codec, encrypted=encoding.encrypted)
    if (file.system_identifier, said) != (layout.system_identifier, key):
        raise InvalidWalFileError(
            f"object '{key}' says that it is file '{file.name}' of system identifier {file.system_identifier}, "
            f"{encoding.codec.value}{', encrypted' if encoding.encrypted else ''}"
        )
