"""Lists the files of the WAL archive with their copies, as a person asks for them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.report import BackupReport, report_values
from wal_pipeline.archive.records import BaseBackup, Copy, WalFile
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.files import CopyFilter
from wal_pipeline.commands.ship.records import RecordedPiece, read_tails
from wal_pipeline.errors import SettingsError
from wal_pipeline.text import moment_json

_AGO: Final = re.compile(r"([0-9]{1,6})\s*([smhdw])\Z")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file with all its recorded copies, by store."""

    file: WalFile
    copies: Mapping[str, Copy]


def list_files(catalog: Catalog, only: CopyFilter) -> list[ListedFile]:
    """Return the files that ``only`` selects, in the order of names, each with **all** its copies.

    Raises: CatalogError.
    """
    files = catalog.files.files(only)
    copies = catalog.files.copies_of({file.name for file in files})
    return [ListedFile(file, copies.get((file.system_identifier, file.name), {})) for file in files]


@dataclass(frozen=True, slots=True)
class ListedBackup:
    """A base backup with all its recorded copies, by store."""

    backup: BaseBackup
    copies: Mapping[str, BaseBackupCopy]


def list_backups(catalog: Catalog) -> list[ListedBackup]:
    """Return the base backups, the oldest first. Raises: CatalogError."""
    copies: dict[str, dict[str, BaseBackupCopy]] = {}
    for copy in catalog.base_backups.copies():
        copies.setdefault(copy.backup_id, {})[copy.store] = copy
    return [ListedBackup(backup, copies.get(backup.backup_id, {})) for backup in catalog.base_backups.all()]


def listed_backup_as_json(listed: ListedBackup) -> dict[str, Any]:
    """Return a listed base backup as JSON values."""
    backup = listed.backup
    return {
        "backup_id": backup.backup_id,
        "kind": backup.kind.value,
        "method": backup.method.value,
        "parent_id": backup.parent_id,
        "system_identifier": str(backup.system_identifier),
        "timeline": backup.timeline,
        "finished_at": moment_json(backup.finished_at),
        "size_bytes": backup.size_bytes,
        "stored_size_bytes": backup.stored_size_bytes,
        "note": backup.note,
        **report_values(BackupReport(backup.warnings, backup.damaged_pages)),
        "copies": {
            store: {
                "status": copy.status.value,
                "restorable_at": moment_json(copy.restorable_at),
                "last_error": copy.last_error,
            }
            for store, copy in listed.copies.items()
        },
    }


@dataclass(frozen=True, slots=True)
class ListedPiece:
    """A piece of an open segment that a store is recorded to have."""

    store: str
    system_identifier: int
    recorded: RecordedPiece


def list_pieces_of_tails(catalog: Catalog, stores: Iterable[str]) -> list[ListedPiece]:
    """Return the pieces that each store is recorded to have, in WAL order. Raises: CatalogError."""
    return [
        ListedPiece(store, tail.system_identifier, one)
        for store, tail in read_tails(catalog.values, stores).items()
        for one in tail.pieces
    ]


def listed_piece_as_json(listed: ListedPiece) -> dict[str, Any]:
    """Return a listed piece as JSON values."""
    piece, encoding = listed.recorded.piece, listed.recorded.encoding
    return {
        "store": listed.store,
        "segment": piece.segment.name,
        "system_identifier": str(listed.system_identifier),
        "timeline": piece.segment.timeline,
        "from": piece.from_offset,
        "to": piece.to_offset,
        "start_lsn": str(piece.start_lsn),
        "end_lsn": str(piece.end_lsn),
        "sha256": piece.sha256,
        "flushed_at": moment_json(piece.flushed_at),
        "first_commit_at": moment_json(piece.first_commit_at),
        "last_commit_at": moment_json(piece.last_commit_at),
        "codec": encoding.codec.value,
        "encrypted": encoding.encrypted,
        "stored_size_bytes": encoding.size_bytes,
        "stored_sha256": encoding.sha256,
    }


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a moment: ISO 8601, in UTC where it names no zone, or how long ago (``30m``, ``2h``, ``7d``).

    Raises: SettingsError.
    """
    ago = _AGO.match(text.strip())
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise SettingsError(
            f"'{text}' is not a moment", hint="Write 2026-11-22T17:45:00Z, 2026-11-22, or how long ago: 30m, 2h, 7d."
        ) from error


def listed_file_as_json(listed: ListedFile) -> dict[str, Any]:
    """Return a listed file as JSON values. The system identifier is text: JSON numbers are not exact that far."""
    file = listed.file
    return {
        "name": file.name,
        "kind": file.kind.value,
        "system_identifier": str(file.system_identifier),
        "timeline": file.timeline,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "start_lsn": file.start_lsn and str(file.start_lsn),
        "end_lsn": file.end_lsn and str(file.end_lsn),
        "spooled_at": moment_json(file.spooled_at),
        "first_commit_at": moment_json(file.first_commit_at),
        "last_commit_at": moment_json(file.last_commit_at),
        "copies": {store: _copy_as_json(copy) for store, copy in sorted(listed.copies.items())},
    }


def _copy_as_json(copy: Copy) -> dict[str, Any]:
    encoding = copy.encoding
    return {
        "status": copy.status.value,
        "object_key": copy.object_key,
        "codec": encoding and encoding.codec.value,
        "encrypted": encoding and encoding.encrypted,
        "stored_size_bytes": encoding and encoding.size_bytes,
        "stored_sha256": encoding and encoding.sha256,
        "tries": copy.tries,
        "last_error": copy.last_error,
        "verified_at": moment_json(copy.verified_at),
        "lag_seconds": copy.lag_seconds,
    }
