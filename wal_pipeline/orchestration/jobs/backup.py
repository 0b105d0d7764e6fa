"""Defines the job that takes a base backup."""

from typing import TYPE_CHECKING, Final

import dagster as dg

from wal_pipeline.orchestration.assets.base_backup_metadata import backup_materialization
from wal_pipeline.orchestration.keys import BACKUP_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors

if TYPE_CHECKING:  # a run imports what it needs: every run's start loads this module
    from collections.abc import Callable

    from wal_pipeline.commands.backup.session import BackupProgress
    from wal_pipeline.commands.backup.take import BackupOutcome


OP_NAME: Final = "stream_base_backup"
INCREMENTAL_OR_FULL: Final = {"ops": {OP_NAME: {"config": {"incremental": True, "or_full": True}}}}


class BackupConfig(dg.Config):
    """``incremental``: build on the newest base backup, or on ``parent_id``. It needs PostgreSQL 17 or newer.

    ``or_full``: where that cannot be, a full one is taken. ``note``: a person's word, kept with the base backup, in
    plain text.
    Another base backup of the cluster is waited for up to ``wait_seconds``: longer than a lease lasts, so that a run
    which follows a killed one takes over from it.
    """

    incremental: bool = False
    parent_id: str | None = None
    or_full: bool = False
    note: str = ""
    wait_seconds: float = 900.0


def build_backup_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that takes one base backup onto every store."""

    @dg.op(
        name=OP_NAME,
        out=dg.Out(dg.Nothing),
        description="Read the cluster once, by its files or through pg_basebackup, compress it, store the same "
        "bytes on every store, read them back, and wait until each store has the WAL that the base backup needs.",
    )
    @with_plain_errors
    def stream_base_backup(context: dg.OpExecutionContext, config: BackupConfig, wal_pipeline: WalPipelineResource):  # type: ignore[no-untyped-def]
        from wal_pipeline.commands.backup.take import audit_entry
        from wal_pipeline.orchestration.assets.closing_events import Stored, closing_events
        from wal_pipeline.wiring.backup import base_backup_taker

        pipeline = wal_pipeline.open()
        taker = base_backup_taker(pipeline)
        with pipeline.audit.work("base backup", keys.cluster, by=f"run {context.run_id}") as told:
            outcome = taker.take(
                incremental=config.incremental,
                parent_id=config.parent_id,
                or_full=config.or_full,
                note=config.note,
                wait_seconds=config.wait_seconds,
                on_progress=_waits_into(context.log.warning),
            )
            told.update(audit_entry(outcome))
        for note in outcome.notes:
            context.log.warning(note)
        context.instance.add_dynamic_partitions(keys.base_backup_partitions_name, [outcome.result.manifest.backup_id])
        for store in outcome.stores:
            if store.stored:
                yield backup_materialization(keys, outcome.result.manifest.record(), store, outcome.result.seconds)
        stored = Stored(base_backups={store.store: 1 for store in outcome.stores if store.stored})
        yield from closing_events(keys, pipeline, context.instance, stored, context.log)
        _raise_incomplete(outcome)
        yield dg.Output(None)

    @dg.job(
        name=BACKUP_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described("Take a base backup now, onto every store."),
    )
    def take_base_backup() -> None:
        stream_base_backup()

    return take_base_backup


def _waits_into(warn: "Callable[[str], object]") -> "Callable[[BackupProgress], None]":
    def show(now: "BackupProgress") -> None:
        if now.wait is not None:
            warn(now.wait.text)

    return show


def _raise_incomplete(outcome: "BackupOutcome") -> None:
    """Fail the run, after the good copies were recorded, where a store lacks the base backup or pages were damaged."""
    report = outcome.result.manifest.report
    if outcome.complete and report.damaged_pages:
        raise dg.Failure(
            description=f"base backup '{outcome.result.manifest.backup_id}' is kept and restorable, but holds "
            f"{report.damage_text}",
            allow_retries=False,
        )
    lacking = [store for store in outcome.stores if not store.restorable]
    if lacking:
        raise dg.Failure(
            description=f"base backup '{outcome.result.manifest.backup_id}' cannot be restored from "
            f"{', '.join(f'{one.store} ({one.error})' if one.error else one.store for one in lacking)} yet\n"
            "HINT: Backfill its partition there.",
            metadata={store.store: dg.MetadataValue.text(store.error or "not restorable yet") for store in lacking},
            allow_retries=False,
        )
