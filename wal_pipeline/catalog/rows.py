"""Turns rows of the catalog into the archive's records, and back."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Row, type_coerce
from sqlalchemy.types import NULLTYPE

from wal_pipeline.archive.records import (
    BackupKind,
    BaseBackup,
    Codec,
    CommitTimes,
    Copy,
    CopyStatus,
    Encoding,
    KnownCopy,
    WalFile,
)
from wal_pipeline.catalog.schema import base_backups, copies, files
from wal_pipeline.catalog.types import lsns, moments
from wal_pipeline.wal.names import FileKind

# Plain dictionaries: calling an Enum costs five times as much, and a screen reads 100,000 rows.
_KINDS: Final = {kind.value: kind for kind in FileKind}
_STATUSES: Final = {status.value: status for status in CopyStatus}
_CODECS: Final = {codec.value: codec for codec in Codec}
_COMMIT_TIMES: Final = {value.value: value for value in CommitTimes}

FILE_COLUMNS: Final = (
    files.c.name,
    files.c.kind,
    files.c.system_identifier,
    files.c.timeline,
    files.c.size_bytes,
    files.c.sha256,
    files.c.spooled_at,
    files.c.wal_segment_size,
    files.c.server_major,
    files.c.start_lsn,
    files.c.end_lsn,
    files.c.commit_times,
    files.c.first_commit_at,
    files.c.last_commit_at,
)
# As the driver gives them: SQLAlchemy's types convert value by value, which takes twice as long for 100,000 files.
PLAIN_FILE_COLUMNS: Final = tuple(type_coerce(column, NULLTYPE).label(column.name) for column in FILE_COLUMNS)
COPY_COLUMNS: Final = (
    copies.c.name,
    copies.c.system_identifier,
    copies.c.store,
    copies.c.status,
    copies.c.object_key,
    copies.c.tries,
    copies.c.last_error,
    copies.c.verified_at,
    copies.c.store_seconds,
    copies.c.lag_seconds,
    copies.c.codec,
    copies.c.encrypted,
    copies.c.stored_size_bytes,
    copies.c.stored_sha256,
    copies.c.stored_md5,
    copies.c.compress_seconds,
)
BACKUP_COLUMNS: Final = tuple(column for column in base_backups.c if column.name not in ("cluster", "updated_at"))


def file_from_row(row: "Row[*tuple[Any, ...]]") -> WalFile:
    """Read a row of ``FILE_COLUMNS``."""
    name, kind, system_identifier, timeline, size_bytes, sha256, spooled_at = row[:7]
    wal_segment_size, server_major, start_lsn, end_lsn, commit_times, first_commit_at, last_commit_at = row[7:]
    return WalFile(
        name=name,
        kind=_KINDS[kind],
        system_identifier=system_identifier,
        timeline=timeline,
        size_bytes=size_bytes,
        sha256=sha256,
        spooled_at=spooled_at,
        wal_segment_size=wal_segment_size,
        server_major=server_major,
        start_lsn=start_lsn,
        end_lsn=end_lsn,
        commit_times=_COMMIT_TIMES[commit_times],
        first_commit_at=first_commit_at,
        last_commit_at=last_commit_at,
    )


def files_from_rows(rows: "Sequence[Row[*tuple[Any, ...]]]") -> list[WalFile]:
    """Read rows of ``PLAIN_FILE_COLUMNS``, column by column, into the records that ``file_from_row`` makes."""
    if not rows:
        return []
    name, kind, system_identifier, timeline, size_bytes, sha256, spooled_at, *of_wal = zip(*rows, strict=True)
    wal_segment_size, server_major, start_lsn, end_lsn, commit_times, first_commit_at, last_commit_at = of_wal
    return list(
        map(
            WalFile,
            name,
            map(_KINDS.__getitem__, kind),
            map(int, system_identifier),
            timeline,
            size_bytes,
            sha256,
            cast("list[datetime]", moments(spooled_at)),
            wal_segment_size,
            server_major,
            lsns(start_lsn),
            lsns(end_lsn),
            map(_COMMIT_TIMES.__getitem__, commit_times),
            moments(first_commit_at),
            moments(last_commit_at),
        )
    )


def file_to_row(cluster: str, file: WalFile, at: datetime) -> dict[str, Any]:
    """Make a row of ``files``, without ``released_at``."""
    row = {column.name: getattr(file, column.name) for column in FILE_COLUMNS}
    return row | {
        "cluster": cluster,
        "kind": file.kind.value,
        "commit_times": file.commit_times.value,
        "updated_at": at,
    }


def copy_from_row(row: "Row[*tuple[Any, ...]]") -> Copy:
    """Read a row of ``COPY_COLUMNS``."""
    name, system_identifier, store, status, object_key, tries, last_error, verified_at = row[:8]
    store_seconds, lag_seconds, codec, encrypted, size_bytes, sha256, md5, seconds = row[8:]
    encoding = None
    if codec is not None:
        encoding = Encoding(_CODECS[codec], encrypted, size_bytes, sha256, md5, seconds)
    return Copy(
        name=name,
        system_identifier=system_identifier,
        store=store,
        status=_STATUSES[status],
        object_key=object_key,
        encoding=encoding,
        tries=tries,
        last_error=last_error,
        verified_at=verified_at,
        store_seconds=store_seconds,
        lag_seconds=lag_seconds,
    )


def known_copies_from_rows(rows: "Sequence[Row[*tuple[Any, ...]]]") -> dict[str, dict[str, KnownCopy]]:
    """Read rows of store, name, status, stored size and the plain moment of verification, by store and name."""
    found = defaultdict[str, dict[str, KnownCopy]](dict)
    verified_at = moments(row[4] for row in rows)
    for (store, name, status, size_bytes, _), at in zip(rows, verified_at, strict=True):
        found[store][name] = KnownCopy(_STATUSES[status], size_bytes, at)
    return dict(found)


def copy_to_row(cluster: str, copy: Copy, at: datetime) -> dict[str, Any]:
    """Make a row of ``copies``, without ``last_tried_at`` and ``last_deep_verified_at``."""
    encoding = copy.encoding
    return {
        "cluster": cluster,
        "system_identifier": copy.system_identifier,
        "name": copy.name,
        "store": copy.store,
        "status": copy.status.value,
        "object_key": copy.object_key,
        "codec": encoding and encoding.codec.value,
        "encrypted": encoding and encoding.encrypted,
        "stored_size_bytes": encoding and encoding.size_bytes,
        "stored_sha256": encoding and encoding.sha256,
        "stored_md5": encoding and encoding.md5,
        "compress_seconds": encoding and encoding.seconds,
        "tries": copy.tries,
        "last_error": copy.last_error,
        "verified_at": copy.verified_at,
        "store_seconds": copy.store_seconds,
        "lag_seconds": copy.lag_seconds,
        "updated_at": at,
    }


def backup_from_row(row: "Row[*tuple[Any, ...]]") -> BaseBackup:
    """Read a row of ``BACKUP_COLUMNS``."""
    values = dict(row._mapping)
    return BaseBackup(**(values | {"kind": BackupKind(values["kind"])}))


def backup_to_row(cluster: str, backup: BaseBackup, at: datetime) -> dict[str, Any]:
    """Make a row of ``base_backups``."""
    row = {column.name: getattr(backup, column.name) for column in BACKUP_COLUMNS}
    return row | {"cluster": cluster, "kind": backup.kind.value, "updated_at": at}
