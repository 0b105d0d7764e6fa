"""Writes an archiving run's events into the audit log."""

from collections.abc import Iterator
from contextlib import closing

from wal_pipeline.commands.archive_push.events import (
    ArchiveEvent,
    CopyFailed,
    CopyVerified,
    FileQuarantined,
    FileReleased,
)
from wal_pipeline.commands.audit import AuditLog


def audited(events: Iterator[ArchiveEvent], audit: AuditLog, *, by: str | None = None) -> Iterator[ArchiveEvent]:
    """Pass an archiving run's events on, each written into the audit log before.

    ``by``: who or what runs it, by default the user.
    """
    with closing(events) as source:  # type: ignore[type-var]
        for event in source:
            _write(event, audit, by)
            yield event


def _write(event: ArchiveEvent, audit: AuditLog, by: str | None) -> None:
    match event:
        case CopyVerified(file=file, copy=copy, is_new=True):
            audit.write("copy", file.name, "verified", by=by, store=copy.store, object_key=copy.object_key)
        case CopyFailed(name=name, store=store, message=message):
            audit.write("copy", name, "failed", by=by, store=store, message=message)
        case FileReleased(file=file, copies=copies):
            stores = sorted(copy.store for copy in copies)
            audit.write("archive", file.name, "released", by=by, stores=stores, sha256=file.sha256)
        case FileQuarantined(name=name, reason=reason, message=message, path=path):
            audit.write("archive", name, "quarantined", by=by, reason=reason.value, message=message, path=str(path))
