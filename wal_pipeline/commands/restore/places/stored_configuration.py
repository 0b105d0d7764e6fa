"""Reads from the stores which configuration a base backup has: kept beside its tars, or in the data directory."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BaseBackupManifest
from wal_pipeline.archive.format.configuration import MAX_TAR_BYTES, KeptConfiguration, configuration_from_tar
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.errors import CodecError, RestoreError, StoreError
from wal_pipeline.stores.cluster_store import ClusterStore

_OWN: Final = b'"Path": "postgresql.conf"'


def read_kept(
    manifest: BaseBackupManifest, places: Sequence[ClusterStore], identities: Sequence[Any]
) -> KeptConfiguration | None:
    """Return the configuration that was kept with the base backup; None where there is none.

    Raises: RestoreError where no store gives it, BaseBackupError where it cannot be read.
    """
    item = manifest.configuration
    if item is None:
        return None
    content = bytearray()

    def take(data: bytes) -> None:
        content.extend(data)
        if len(content) > MAX_TAR_BYTES:
            raise RestoreError(f"object '{item.name}' has more than {MAX_TAR_BYTES} bytes")

    reasons = _open_anywhere(manifest, item, places, identities, begin=content.clear, sink=take)
    if reasons is not None:
        raise RestoreError(
            f"the configuration files of base backup '{manifest.backup_id}' could not be had from any store:\n"
            + "\n".join(reasons),
            hint="Restore without them with --no-restore-config.",
        )
    return configuration_from_tar(bytes(content))


def has_own_configuration(
    manifest: BaseBackupManifest, places: Sequence[ClusterStore], identities: Sequence[Any]
) -> bool | None:
    """Return whether the data directory of a base backup has a ``postgresql.conf``; None where no store tells.

    PostgreSQL's own manifest names every file.
    """
    tail, found = b"", False

    def look(data: bytes) -> None:
        nonlocal tail, found
        text = tail + data
        found = found or _OWN in text
        tail = text[-len(_OWN) :]

    def begin() -> None:
        nonlocal tail
        tail = b""

    reasons = _open_anywhere(manifest, manifest.backup_manifest, places, identities, begin=begin, sink=look)
    return found if reasons is None else None


def _open_anywhere(
    manifest: BaseBackupManifest,
    item: BackupObject,
    places: Sequence[ClusterStore],
    identities: Sequence[Any],
    *,
    begin: Callable[[], object],
    sink: Callable[[bytes], object],
) -> list[str] | None:
    """Open an object from the first store that has it whole; return each store's reason where none has."""
    reasons: list[str] = []
    for place in places:
        begin()
        try:
            open_object(place, manifest, item, identities=identities, sink=sink)
        except (StoreError, CodecError) as error:
            reasons.append(f"{place.name}: {error.message.removeprefix(place.name + ': ')}")
        else:
            return None
    return reasons
