"""Chooses the base backup on which an incremental one is built, and brings its file list to this machine."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.commands.inventory.listing import list_backup_ids
from wal_pipeline.commands.inventory.manifests import read_base_backup
from wal_pipeline.errors import BaseBackupError, CodecError, StoreError
from wal_pipeline.stores.cluster_store import ClusterStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ParentBackup:
    """The parent of an incremental base backup, with its ``backup_manifest`` on this machine."""

    manifest: BaseBackupManifest
    backup_manifest: Path

    @property
    def chain(self) -> tuple[str, ...]:
        """The chain of a base backup that is built on this one."""
        return (*self.manifest.chain, self.manifest.backup_id)


def choose_parent(places: Sequence[ClusterStore], parent_id: str | None = None) -> str:
    """Return ``parent_id``, or the newest base backup, where all stores that answer have it with its whole chain.

    Raises: BaseBackupError.
    """
    held = [ids for place in places if (ids := _answer(place)) is not None]
    common = set.intersection(*held) if held else set()
    candidates = [parent_id] if parent_id is not None else sorted(common, reverse=True)
    for candidate in candidates:
        if candidate in common and common.issuperset(_chain(places, candidate)):
            return candidate
    wanted = f"base backup '{parent_id}' is" if parent_id else "no base backup is"
    raise BaseBackupError(
        f"{wanted} on all stores with its whole chain, so none can be the parent of an incremental one",
        hint="Take a full base backup, or refill the store that lacks one.",
    )


def fetch_parent(
    places: Sequence[ClusterStore], backup_id: str, *, identities: Sequence[Any], folder: Path
) -> ParentBackup:
    """Bring the parent's ``backup_manifest`` into ``folder``, from the first store that has it whole.

    Raises: BaseBackupError where no store has it, or it is encrypted and no identity opens it.
    """
    reasons = []
    for place in places:
        try:
            manifest = read_base_backup(place, backup_id)
            target = folder / "backup_manifest"
            with target.open("wb") as file:
                open_object(place, manifest, manifest.backup_manifest, identities=identities, sink=file.write)
        except (StoreError, BaseBackupError, CodecError) as error:
            reasons.append(f"{place.name}: {error.message.removeprefix(place.name + ': ')}")
        else:
            return ParentBackup(manifest, target)
    raise BaseBackupError(
        f"the manifest of the parent '{backup_id}' cannot be read: {'; '.join(reasons)}",
        hint="Take a full base backup; where the parent is encrypted, set WAL_PIPELINE_AGE_IDENTITY_FILE.",
    )


def _answer(place: ClusterStore) -> set[str] | None:
    try:
        return set(list_backup_ids(place))
    except StoreError as error:
        _log.warning("the parent is chosen without asking %s", error.message)
        return None


def _chain(places: Sequence[ClusterStore], backup_id: str) -> tuple[str, ...]:
    for place in places:
        try:
            return read_base_backup(place, backup_id).chain
        except (StoreError, BaseBackupError) as error:
            _log.warning("%s", error.message)
    raise BaseBackupError(f"no store has a manifest of base backup '{backup_id}' that can be read")
