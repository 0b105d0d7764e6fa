"""Says whether a base backup on a store is whole, and why not: one rule for everybody who lists a store."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.stores.base import StoredObject

_SHOWN: Final = 5


class BackupFaultKind(StrEnum):
    """Why a base backup is not whole."""

    UNFINISHED = "unfinished"  # it has no manifest, so it does not exist
    UNREADABLE = "unreadable"  # its manifest is damaged, too long or of another format
    INCOMPLETE = "incomplete"  # objects that its manifest names are not there
    WRONG_SIZE = "wrong size"  # objects have other sizes than its manifest says


@dataclass(frozen=True, slots=True)
class BackupFault:
    """Why a base backup is not whole: ``reason`` names it, ``objects`` are the names of what is wrong below it.

    ``is_later``: its manifest was written by a newer version of this program.
    """

    kind: BackupFaultKind
    reason: str
    objects: tuple[str, ...] = ()
    is_later: bool = False


def unfinished(backup_id: str) -> BackupFault:
    """Return the fault of a base backup without a manifest."""
    return BackupFault(BackupFaultKind.UNFINISHED, f"base backup '{backup_id}' has no manifest")


def unreadable(reason: str, *, is_later: bool = False) -> BackupFault:
    """Return the fault of a base backup whose manifest cannot be used; ``reason`` names the manifest."""
    return BackupFault(BackupFaultKind.UNREADABLE, reason, is_later=is_later)


def find_fault(manifest: BaseBackupManifest, found: Mapping[str, StoredObject]) -> BackupFault | None:
    """Compare a base backup's objects, by their names, with its manifest; None where it is whole.

    Only names and sizes are compared. What is missing counts before what has another size.
    """
    where = f"base backup '{manifest.backup_id}'"
    missing = tuple(item.name for item in manifest.objects if item.name not in found)
    if missing:
        names = _listed(f"'{name}'" for name in missing)
        reason = f"{where}: object {names} is not there" if len(missing) == 1 else f"{where}: {names} are not there"
        return BackupFault(BackupFaultKind.INCOMPLETE, reason, missing)
    wrong = tuple(item for item in manifest.objects if found[item.name].size_bytes != item.size_bytes)
    if wrong:
        sizes = (f"'{one.name}' has {found[one.name].size_bytes} bytes, expected {one.size_bytes}" for one in wrong)
        return BackupFault(
            BackupFaultKind.WRONG_SIZE, f"{where}: object {_listed(sizes)}", tuple(one.name for one in wrong)
        )
    return None


def _listed(texts: Iterable[str]) -> str:
    all_of_them = list(texts)
    shown = ", ".join(all_of_them[:_SHOWN])
    return shown if len(all_of_them) <= _SHOWN else f"{shown} and {len(all_of_them) - _SHOWN} more"
