"""Chooses the base backup on which an incremental one is built, and brings its file list to this machine."""

import fcntl
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, parse_index
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.commands.inventory.listing import StoreListing, list_base_backups
from wal_pipeline.commands.inventory.manifests import read_base_backup
from wal_pipeline.commands.inventory.wholeness import BackupFaultKind
from wal_pipeline.errors import BaseBackupError, CodecError, ParentError, StoreError
from wal_pipeline.stores.cluster_store import ClusterStore

_log = logging.getLogger(__name__)
_SHOWN: Final = 3
_FOLDER: Final = "parent-"
_MADE_SECONDS: Final = 60.0  # between a folder's making and its lock


@dataclass(frozen=True, slots=True)
class ParentBackup:
    """The parent of an incremental base backup, with its ``backup_manifest`` on this machine.

    ``index`` says which file lies in which volume, where it is of the method ``local``.
    """

    manifest: BaseBackupManifest
    backup_manifest: Path
    index: FileIndex | None = None

    @property
    def chain(self) -> tuple[str, ...]:
        """The chain of a base backup that is built on this one."""
        return (*self.manifest.chain, self.manifest.backup_id)


def choose_parent(places: Sequence[ClusterStore], parent_id: str | None = None) -> str:
    """Return ``parent_id``, or the newest base backup, where all stores that answer have it whole with its whole chain.

    One that was taken with damaged pages is left out: what is built on it has them too, whatever became of the pages.

    Raises: ParentError.
    """
    held = [listing for place in places if (listing := _answer(place)) is not None]
    common = set.intersection(*map(_sound, held)) if held else set[str]()
    candidates = [parent_id] if parent_id is not None else sorted(common, reverse=True)
    for candidate in candidates:
        if candidate in common and common.issuperset(held[0].manifests[candidate].chain):
            return candidate
    wanted = f"base backup '{parent_id}' is" if parent_id else "no base backup is"
    reasons = _reasons(held, parent_id)
    raise ParentError(
        f"{wanted} whole on all stores with its whole chain, so none can be the parent of an incremental one{reasons}",
        hint="Take a full base backup, or refill the store that lacks one.",
    )


def _sound(listing: StoreListing) -> set[str]:
    return {key for key, one in listing.manifests.items() if listing.is_whole(key) and not one.report.damaged_pages}


def _reasons(held: Sequence[StoreListing], parent_id: str | None) -> str:
    faults = [
        f"{listing.store}: {fault.reason.removeprefix(f'{listing.store}: ')}"
        for listing in held
        for key, fault in listing.faults.items()
        if parent_id in (None, key) and fault.kind is not BackupFaultKind.UNFINISHED
    ]
    damaged = {
        f"base backup '{key}' was taken with damaged pages"
        for listing in held
        for key, one in listing.manifests.items()
        if parent_id in (None, key) and one.report.damaged_pages
    }
    found = [*faults, *sorted(damaged)]
    return f": {'; '.join(found[:_SHOWN])}" if found else ""


@contextmanager
def parent_folder(scratch_folder: Path) -> Iterator[Path]:
    """Give a folder for the parent's file list, which is ours while we run, and remove it at the end.

    Folders of killed processes are removed: the lock in each of them ends with its process, and nothing else tells.
    """
    for path in scratch_folder.glob(f"{_FOLDER}*"):
        _remove_unlocked(path)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=scratch_folder))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_unlocked(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if datetime.now(UTC).timestamp() - folder.stat().st_mtime > _MADE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # another process uses it
    finally:
        os.close(descriptor)


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
            index = _fetch_index(place, manifest, identities)
        except (StoreError, BaseBackupError, CodecError) as error:
            reasons.append(f"{place.name}: {error.message.removeprefix(place.name + ': ')}")
        else:
            return ParentBackup(manifest, target, index)
    raise BaseBackupError(
        f"the manifest of the parent '{backup_id}' cannot be read: {'; '.join(reasons)}",
        hint="Take a full base backup; where the parent is encrypted, set WAL_PIPELINE_AGE_IDENTITY_FILE.",
    )


def _fetch_index(place: ClusterStore, manifest: BaseBackupManifest, identities: Sequence[Any]) -> FileIndex | None:
    if manifest.file_index is None:
        return None
    content = io.BytesIO()
    open_object(place, manifest, manifest.file_index, identities=identities, sink=content.write)
    content.seek(0)
    return parse_index(content, manifest)


def _answer(place: ClusterStore) -> StoreListing | None:
    try:
        return list_base_backups(place)
    except StoreError as error:
        _log.warning("the parent is chosen without asking %s", error.message)
        return None
