"""Turns the settings into an archiving run."""

from collections.abc import Iterator
from functools import cache

from wal_pipeline.commands.archive_push.alerts import ArchiveAlerts
from wal_pipeline.commands.archive_push.audit_trail import audited
from wal_pipeline.commands.archive_push.events import ArchiveEvent
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline.commands.archive_push.prepare import Preparer
from wal_pipeline.commands.archive_push.run import Archiver
from wal_pipeline.commands.continuity.archived import ArchivedWal
from wal_pipeline.commands.continuity.guard import ContinuityGuard
from wal_pipeline.commands.pause import PauseWatch
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.wiring.pipeline import Pipeline


def archive_options(pipeline: Pipeline, *, linger_seconds: float) -> ArchiveOptions:
    """Return how an archiving run goes about it, by the settings."""
    return ArchiveOptions(
        concurrency=pipeline.settings.concurrency,
        memory_bytes=pipeline.settings.memory_bytes,
        read_back=pipeline.settings.read_back,
        linger_seconds=linger_seconds,
        max_seconds=pipeline.settings.max_run_seconds,
        max_age_seconds=pipeline.settings.max_run_age_seconds,
        max_backoff_seconds=pipeline.settings.max_backoff_seconds,
    )


def preparer(pipeline: Pipeline) -> Preparer:
    """Return what reads, checks and encodes the files of the spool. The server's version is asked once at most."""
    return Preparer(
        pipeline.spool,
        pipeline.encoder,
        pipeline.commits,
        unreadable=pipeline.settings.unreadable_wal == "archive",
        newer_major=cache(pipeline.newer_major),
    )


def continuity_guard(pipeline: Pipeline) -> ContinuityGuard:
    """Return the judge of one run's files."""
    archived = ArchivedWal(pipeline.stores, pipeline.catalog, pipeline.layout)
    return ContinuityGuard(archived, pipeline.spool.folder, pipeline.spool.quarantine_folder)


def archived_segment_bytes(pipeline: Pipeline) -> int | None:
    """Return the segment size of the server's archive; None where it is empty, or server or archive do not tell."""
    try:
        archived = ArchivedWal(pipeline.stores, pipeline.catalog, pipeline.layout)
        return archived.segment_size(pipeline.server.facts().system_identifier)
    except WalPipelineError:
        return None


def archiver(pipeline: Pipeline, *, linger_seconds: float = 0.0) -> Archiver:
    """Return a new archiving run."""
    return Archiver(
        spool=pipeline.spool,
        stores=pipeline.stores,
        catalog=pipeline.catalog,
        identity=pipeline.identity,
        preparer=preparer(pipeline),
        guard=lambda: continuity_guard(pipeline),
        layout=pipeline.layout,
        clock=pipeline.clock,
        options=archive_options(pipeline, linger_seconds=linger_seconds),
    )


def archive_now(
    pipeline: Pipeline, *, linger_seconds: float = 0.0, by: str | None = None, heed_pause: bool = True
) -> Iterator[ArchiveEvent]:
    """Archive what waits in the spool; yield each event once the audit log and the alerts know of it.

    A pause ends it early unless ``heed_pause`` is False. ``by`` stands in the audit log as who or what runs it; by
    default the user.

    Raises: SpoolError (SpoolBusyError where another process archives from this spool), CatalogError, SettingsError.
    """
    alerts = ArchiveAlerts(pipeline.catalog, pipeline.clock)
    run = archiver(pipeline, linger_seconds=linger_seconds)
    events = run.drain(PauseWatch(pipeline.catalog, pipeline.clock)) if heed_pause else run.drain()
    for event in audited(events, pipeline.audit, by=by):
        alerts.note(event)
        yield event
