"""What one store holds of a cluster: listed when needed, and never taken from the catalog."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wal_pipeline.archive.base_backup import BaseBackupManifest, is_backup_id
from wal_pipeline.archive.base_backup_json import parse_manifest
from wal_pipeline.archive.layout import MANIFEST_NAME, Layout, StoredName, cluster_prefix, system_identifier_of
from wal_pipeline.errors import BaseBackupError, RestoreError, SettingsError, StoreError, WalPipelineError
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.names import FileKind

MAX_MANIFEST_BYTES: Final = 256 << 20
_READ_BYTES: Final = 1 << 20


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


def list_base_backups(store: Store, layout: Layout) -> tuple[tuple[BaseBackupManifest, ...], tuple[str, ...]]:
    """Return the base backups that are whole by their manifest, in the order of time, and what the others lack.

    Raises: StoreError.
    """
    found: list[BaseBackupManifest] = []
    faults: list[str] = []
    for backup_id, sizes in _base_objects(store, layout).items():
        if MANIFEST_NAME not in sizes:
            continue  # begun and never finished: it does not exist
        try:
            manifest = read_base_backup(store, layout, backup_id)
        except StoreError:
            raise
        except WalPipelineError as error:
            faults.append(f"{store.name}: {error.message}")
            continue
        wrong = next((item.name for item in manifest.objects if sizes.get(item.name) != item.size_bytes), None)
        if wrong is None:
            found.append(manifest)
        else:
            faults.append(
                f"{store.name}: base backup '{backup_id}' is left out: '{wrong}' is missing or of another size"
            )
    return tuple(found), tuple(faults)


def read_base_backup(store: Store, layout: Layout, backup_id: str) -> BaseBackupManifest:
    """Read one base backup's manifest. Raises: ObjectMissingError, BaseBackupError."""
    where = f"{store.name}: {layout.manifest_key(backup_id)}"
    return parse_manifest(read_manifest_bytes(store, layout, backup_id), backup_id=backup_id, where=where)


def read_manifest_bytes(store: Store, layout: Layout, backup_id: str) -> bytes:
    """Read a base backup's ``manifest.json``. Raises: BaseBackupError, ObjectMissingError, StoreError."""
    key = layout.manifest_key(backup_id)
    with store.open(key) as stream:
        parts, size_bytes = [], 0
        while data := stream.read(_READ_BYTES):
            parts.append(data)
            size_bytes += len(data)
            if size_bytes > MAX_MANIFEST_BYTES:
                raise BaseBackupError(f"manifest '{store.name}:{key}' has more than {MAX_MANIFEST_BYTES} bytes")
    return b"".join(parts)


def _base_objects(store: Store, layout: Layout) -> dict[str, dict[str, int]]:
    """Return the sizes of all objects of base backups, by backup id and name."""
    found: dict[str, dict[str, int]] = {}
    for item in store.list(layout.base_root):
        backup_id = layout.backup_id_of(item.key)
        if backup_id is not None and is_backup_id(backup_id):
            found.setdefault(backup_id, {})[item.key.rsplit("/", 1)[-1]] = item.size_bytes
    return found


def history_files(wal: Iterable[StoredWal]) -> list[StoredWal]:
    """Return the timeline history files, in the order of timelines."""
    return sorted(
        (item for item in wal if item.stored.file.kind is FileKind.HISTORY),
        key=lambda item: item.stored.file.timeline,
    )


def system_identifiers(store: Store, prefix: str, cluster: str) -> set[int]:
    """Return all system identifiers below a cluster's name: one LIST for each."""
    root = cluster_prefix(prefix, cluster)
    found: set[int] = set()
    after = ""
    while (item := next(iter(store.list(root, start_after=after)), None)) is not None:
        part = item.key.removeprefix(root).split("/", 1)[0]
        identifier = system_identifier_of(prefix, cluster, item.key)
        if identifier is not None:
            found.add(identifier)
        after = f"{root}{part}0" if "/" in item.key.removeprefix(root) else item.key  # "0" comes right after "/"
    return found


def only_system_identifier(stores: Sequence[Store], prefix: str, cluster: str) -> int:
    """Return the one system identifier that the stores know under a cluster's name.

    Raises: SettingsError, RestoreError where there is none or there are several; StoreError.
    """
    answers = {store.name: system_identifiers(store, prefix, cluster) for store in stores}
    return choose_system_identifier(answers, prefix, cluster, None)


def choose_system_identifier(answers: Mapping[str, set[int]], prefix: str, cluster: str, given: int | None) -> int:
    """Return ``given`` where a store knows it, else the only one; ``answers`` are what each store knows.

    Raises: SettingsError where nothing is known, RestoreError where ``given`` is not or there are several.
    """
    found = set[int]().union(*answers.values())
    if not found:
        raise SettingsError(
            f"no store ({', '.join(answers)}) has anything below '{cluster_prefix(prefix, cluster)}'",
            hint="Check the cluster's name, the prefix and the buckets.",
        )
    listed = ", ".join(str(identifier) for identifier in sorted(found))
    if given is not None and given not in found:
        raise RestoreError(f"no store has system identifier {given} of cluster '{cluster}', expected one of: {listed}")
    if given is None and len(found) > 1:
        raise RestoreError(
            f"the stores know the cluster '{cluster}' with several system identifiers: {listed}",
            hint="Say which with --system-identifier.",
        )
    return found.pop() if given is None else given
