"""Reading what one store's objects say of themselves, for a catalog that is made again."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest, is_backup_id
from wal_pipeline.archive.format.keys import MANIFEST_NAME, Layout, StoredName, cluster_prefix, system_identifier_of
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import Encoding, WalFile
from wal_pipeline.commands.inventory.manifests import read_base_backup
from wal_pipeline.errors import InvalidWalFileError, StoreError, WalPipelineError
from wal_pipeline.stores.base import Store, StoredObject

BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class ScannedWal:
    """One WAL object: where it is, its size in the store, and what its metadata says."""

    key: str
    size_bytes: int
    file: WalFile
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class ScannedBaseBackup:
    """One base backup with a manifest, and the sizes of the objects that lie beside it, by their names."""

    manifest: BaseBackupManifest
    found: dict[str, int]


@dataclass(slots=True)
class StoreScan:
    """One pass over a store below the cluster's prefix.

    First take all of ``wal``, then ``base_backups``. ``foreign`` are keys that we never make; ``faults`` say which
    of our objects could not be read; ``unfinished`` are base backups without a manifest, which do not exist.
    """

    store: Store
    prefix: str
    cluster: str
    on_object: Callable[[str], None]
    foreign: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    system_identifiers: set[int] = field(default_factory=set)
    _base: dict[tuple[int, str], dict[str, int]] = field(default_factory=dict)

    def wal(self, workers: int) -> Iterator[list[ScannedWal]]:
        """Yield the WAL objects in batches; ``workers`` of them are asked at once. Raises: StoreError."""
        with ThreadPoolExecutor(workers, thread_name_prefix=f"scan-{self.store.name}") as pool:
            listed = self._listed()
            while batch := list(islice(listed, BATCH)):
                yield [item for item in pool.map(lambda found: self._head(*found), batch) if item is not None]

    def base_backups(self) -> Iterator[ScannedBaseBackup]:
        """Yield the base backups that ``wal`` passed. Raises: StoreError."""
        for (system_identifier, backup_id), found in sorted(self._base.items()):
            layout = self._layout(system_identifier)
            if MANIFEST_NAME not in found:
                self.unfinished.append(f"{layout.base_root}{backup_id}")
                continue
            try:
                yield ScannedBaseBackup(read_base_backup(self.store, layout, backup_id), found)
            except StoreError:
                raise
            except WalPipelineError as error:
                self.faults.append(f"{self.store.name}: {error.message}")

    def _listed(self) -> Iterator[tuple[StoredObject, Layout, StoredName]]:
        for item in self.store.list(cluster_prefix(self.prefix, self.cluster)):
            self.on_object(self.store.name)
            system_identifier = system_identifier_of(self.prefix, self.cluster, item.key)
            layout = self._layout(system_identifier or 0)
            stored = layout.parse_wal_key(item.key)
            if stored is not None:
                self.system_identifiers.add(layout.system_identifier)
                yield item, layout, stored
            elif not self._note_base_object(layout, item):
                self.foreign.append(item.key)

    def _note_base_object(self, layout: Layout, item: StoredObject) -> bool:
        backup_id = layout.backup_id_of(item.key)
        if backup_id is None or not is_backup_id(backup_id):
            return False
        self.system_identifiers.add(layout.system_identifier)
        objects = self._base.setdefault((layout.system_identifier, backup_id), {})
        objects[item.key.rsplit("/", 1)[-1]] = item.size_bytes
        return True

    def _head(self, item: StoredObject, layout: Layout, stored: StoredName) -> ScannedWal | None:
        found = self.store.head(item.key)
        if found is None:  # expired since it was listed
            return None
        try:
            file, encoding = from_metadata(item.key, found.metadata)
            _check_says_its_key(item.key, layout, stored, file, encoding)
        except InvalidWalFileError as error:
            self.faults.append(f"{self.store.name}: {error.message}")
            return None
        return ScannedWal(item.key, found.size_bytes, file, encoding)

    def _layout(self, system_identifier: int) -> Layout:
        return Layout(self.prefix, self.cluster, system_identifier)


def _check_says_its_key(key: str, layout: Layout, stored: StoredName, file: WalFile, encoding: Encoding) -> None:
    """Refuse an object that was moved: its metadata must make the very key under which it lies."""
    said = (file.system_identifier, file.name, encoding.codec, encoding.encrypted)
    if said != (layout.system_identifier, stored.file.name, stored.codec, stored.encrypted):
        raise InvalidWalFileError(
            f"object '{key}' says that it is file '{file.name}' of system identifier {file.system_identifier}, "
            f"{encoding.codec.value}{', encrypted' if encoding.encrypted else ''}"
        )


def missing_objects(backup: ScannedBaseBackup) -> list[str]:
    """Return the names of a base backup's objects that are not there."""
    return sorted(item.name for item in backup.manifest.objects if item.name not in backup.found)


def damaged_objects(backup: ScannedBaseBackup) -> list[str]:
    """Return the names of a base backup's objects that have another size than the manifest says."""
    there = (item for item in backup.manifest.objects if item.name in backup.found)
    return sorted(item.name for item in there if backup.found[item.name] != item.size_bytes)
