"""``wal-pipeline backup`` takes a base backup now, onto every store."""

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line, typed
from wal_pipeline.text import length, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

    from wal_pipeline.commands.backup.local.processes.spawned import SpawnedAhead
    from wal_pipeline.commands.backup.session import BackupProgress
    from wal_pipeline.commands.backup.take import BackupOutcome
    from wal_pipeline.errors import BaseBackupError
    from wal_pipeline.wiring.pipeline import Pipeline


_PAGES_HINT = (
    "The pages are damaged in the running cluster: find what lies there with 'SELECT oid::regclass FROM pg_class WHERE "
    "relfilenode = …', restore it from an older base backup (those stay until a good one exists), and check the disk."
)


@click.command("backup")
@click.option("--incremental", is_flag=True, help="Build on the newest base backup (PostgreSQL 17 and newer).")
@click.option("--parent", "parent_id", metavar="ID", help="Build on this base backup.")
@click.option(
    "--note", default="", metavar="TEXT", help="Keep this line with it, in plain text, shown wherever it is listed."
)
@click.option(
    "--wait",
    "wait_seconds",
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for another base backup of this cluster to end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@pass_context
def backup_command(
    context: Context, *, incremental: bool, parent_id: str | None, note: str, wait_seconds: float, as_json: bool
) -> int:
    """Take a base backup, store it on every store, and wait until its WAL is there too.

    Exit code 0 where it can be restored from every store, 1 where a store lacks it or its WAL, or where pages of the
    cluster had wrong checksums: it is kept then, and restorable.
    """
    may_be_remote = incremental or parent_id is not None
    with closing(_started_ahead(context.pipeline, may_be_remote=may_be_remote, waits=wait_seconds > 0)) as ahead:
        outcome = _take(
            context.pipeline,
            ahead,
            transient=as_json,
            incremental=incremental,
            parent_id=parent_id,
            note=note,
            wait_seconds=wait_seconds,
        )
    summary = _summary(outcome)
    click.echo(json.dumps(summary)) if as_json else print_line(_text(outcome))
    for warning in (*outcome.result.manifest.report.warnings, *outcome.notes):
        print_line(f"WARNING: {warning}", err=True)
    for error in _errors(outcome):
        print_line(f"ERROR: {error}", err=True)
    return 0 if outcome.sound else 1


def _started_ahead(pipeline: "Pipeline", *, may_be_remote: bool, waits: bool) -> "SpawnedAhead":
    """Start the worker processes that a base backup will most likely need: they load while this one does."""
    from wal_pipeline.archive.records import MethodChoice
    from wal_pipeline.commands.backup.local.processes.count import choose_processes
    from wal_pipeline.commands.backup.local.processes.spawned import SpawnedAhead

    settings = pipeline.settings
    is_likely = settings.backup_method is MethodChoice.LOCAL or (
        settings.backup_method is MethodChoice.AUTO and not may_be_remote
    )
    if settings.pgdata is None or not is_likely or waits:
        return SpawnedAhead()
    return SpawnedAhead(choose_processes(settings.base_backup_workers, settings.pgdata))


def _take(pipeline: "Pipeline", ahead: "SpawnedAhead", *, transient: bool, **wishes: Any) -> "BackupOutcome":
    """Take a base backup, and show how far it is. ``wishes`` are those of ``BaseBackupTaker.take``."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    from wal_pipeline.cli.progress_columns import BinarySpeedColumn
    from wal_pipeline.commands.backup.take import audit_entry
    from wal_pipeline.wiring.backup import base_backup_taker

    taker = base_backup_taker(pipeline, archive=_archiving(pipeline), ahead=ahead)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        BinarySpeedColumn(),
        TimeElapsedColumn(),
    )
    audited = pipeline.audit.work("base backup", pipeline.settings.cluster)
    with audited as told, Progress(*columns, console=Console(stderr=True), transient=transient) as progress:
        outcome = taker.take(on_progress=_shown(progress), **wishes)
        told.update(audit_entry(outcome))
    return outcome


def _archiving(pipeline: "Pipeline") -> "Callable[[], None] | None":
    """Return the function that drains the spool while we wait for WAL, unless another process does so already."""
    if pipeline.settings.spool_folder is None:
        return None

    def archive() -> None:
        from wal_pipeline.errors import SpoolBusyError, SpoolError
        from wal_pipeline.wiring.archive_push import archive_now

        try:
            for _ in archive_now(pipeline, heed_pause=False):
                pass
        except SpoolBusyError:
            return
        except SpoolError as error:  # the base backup is stored: waiting shows whether its WAL comes
            print_line(f"WARNING: {error}", err=True)

    return archive


def _shown(progress: "Progress") -> "Callable[[BackupProgress], None]":
    task = progress.add_task("starting", total=None)

    def show(now: "BackupProgress") -> None:
        if now.wait is not None:
            progress.console.print(typed(now.wait.text), markup=False, highlight=False, soft_wrap=True)
        total = max(now.total_bytes, now.read_bytes) if now.total_bytes is not None else None
        progress.update(task, description=now.phase.value, completed=now.read_bytes, total=total)

    return show


def _summary(outcome: "BackupOutcome") -> dict[str, Any]:
    from wal_pipeline.archive.format.base_backup.report import report_values

    manifest = outcome.result.manifest
    return {
        "backup_id": manifest.backup_id,
        "kind": manifest.kind.value,
        "method": manifest.method.value,
        "why_remote": outcome.result.why_remote,
        "parent_id": manifest.parent_id,
        "timeline": manifest.timeline,
        "start_lsn": str(manifest.start_lsn),
        "stop_lsn": str(manifest.stop_lsn),
        "finished_at": manifest.finished_at.isoformat(),
        "size_bytes": manifest.size_bytes,
        "stored_size_bytes": manifest.stored_size_bytes,
        "seconds": round(outcome.result.seconds, 3),
        "complete": outcome.complete,
        "note": manifest.note,
        **report_values(manifest.report),
        "notes": list(outcome.notes),
        "stores": {
            item.store: {"stored": item.stored, "restorable": item.restorable, "error": item.error}
            for item in outcome.stores
        },
    }


def _errors(outcome: "BackupOutcome") -> "Iterator[BaseBackupError]":
    """Yield an error for each store from which the base backup cannot be restored."""
    from wal_pipeline.errors import BaseBackupError

    name = f"base backup '{outcome.result.manifest.backup_id}'"
    report = outcome.result.manifest.report
    if report.damaged_pages:
        kept = "is kept and restorable" if any(one.restorable for one in outcome.stores) else "is kept"
        yield BaseBackupError(f"{name} {kept}, but holds {report.damage_text}", hint=_PAGES_HINT)
    for found in outcome.stores:
        reason = f": {found.error}" if found.error else ""
        if not found.stored:
            hint = f"Once {found.store} is well, 'wal-pipeline verify --repair' copies it there from another store."
            yield BaseBackupError(f"{name} is not on {found.store}{reason}", hint=hint)
        elif not found.restorable:
            hint = "'wal-pipeline archive' takes there what waits in the spool; 'wal-pipeline status' says what lacks."
            yield BaseBackupError(
                f"{name} is on {found.store} and cannot be restored from there yet{reason}", hint=hint
            )


def _text(outcome: "BackupOutcome") -> str:
    manifest = outcome.result.manifest
    head = f"{manifest.kind.value} base backup {manifest.backup_id}: {size(manifest.size_bytes)}"
    lines = [f"{head}, {size(manifest.stored_size_bytes)} stored, {length(outcome.result.seconds)}"]
    if outcome.result.why_remote is not None:
        lines.append(f"  taken with pg_basebackup: {outcome.result.why_remote}")
    lines += [f"  note: {manifest.note}"] if manifest.note else []
    for found in outcome.stores:
        state = "restorable" if found.restorable else "stored, not restorable yet" if found.stored else "missing"
        damaged = ", with damaged pages" if found.restorable and manifest.report.damaged_pages else ""
        lines.append(f"  {found.store}: {state}{damaged}" + (f" ({found.error})" if found.error else ""))
    return "\n".join(lines)
