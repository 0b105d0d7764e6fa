"""Defines the job that shows in Dagster the copies that only the catalog knows."""

from collections.abc import Iterator, Sequence

import dagster as dg

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.orchestration.assets.base_backup_metadata import (
    backup_materialization,
    newest_again,
    recorded_outcome,
)
from wal_pipeline.orchestration.assets.wal.segment_metadata import segment_materialization
from wal_pipeline.orchestration.jobs.unrecorded import Names, Unrecorded, find_unrecorded
from wal_pipeline.orchestration.keys import RECORD_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.wal.names import require_file_name

# Dagster writes some 90 records a second: a run of 2,000 files on two stores is over in a minute, and the next run
# takes the rest.
FILES_PER_RUN = 2000
_BATCH = 200


def build_record_job(keys: Keys) -> dg.JobDefinition:
    """Return the job of one cluster."""

    @dg.op(
        out=dg.Out(dg.Nothing),
        description="Compare the catalog with Dagster's records, and add the partitions and materializations of copies "
        "that 'wal-pipeline archive' or 'setup' stored, or that 'wal-pipeline catalog rebuild' or 'verify' found, and "
        "the verdicts of 'wal-pipeline verify'. Stores nothing.",
    )
    @with_plain_errors
    def record_copies(context: dg.OpExecutionContext, wal_pipeline: WalPipelineResource):  # type: ignore[no-untyped-def]
        from wal_pipeline.orchestration.assets.closing_events import Stored, closing_events
        from wal_pipeline.orchestration.jobs.verify import unshown_results

        pipeline = wal_pipeline.open()
        catalog, stores = pipeline.catalog, pipeline.settings.stores
        found = find_unrecorded(context.instance, keys, catalog, stores, pipeline.clock())
        recorded = 0
        for materialization in record(context.instance, keys, catalog, found):
            recorded += 1
            yield materialization
        context.add_output_metadata({"found": found.count, "recorded": recorded})
        files, base_backups = ({s: 0 for s, names in one.items() if names} for one in (found.files, found.base_backups))
        yield from closing_events(keys, pipeline, context.instance, Stored(files, base_backups), context.log)
        yield from unshown_results(context.instance, keys, catalog)
        yield dg.Output(None)

    @dg.job(
        name=RECORD_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            f"Show in Dagster what was archived without it, {FILES_PER_RUN} files a run, in WAL order. The record "
            "sensor starts it while a record is missing."
        ),
    )
    def record_archive() -> None:
        record_copies()

    return record_archive


def record(
    instance: dg.DagsterInstance, keys: Keys, catalog: Catalog, found: Unrecorded
) -> Iterator[dg.AssetMaterialization]:
    """Add the partitions in WAL order, and yield each copy's materialization."""
    names = sorted(frozenset().union(*found.files.values()), key=lambda name: require_file_name(name).order)
    for start in range(0, min(len(names), FILES_PER_RUN), _BATCH):
        batch = names[start : start + _BATCH]
        instance.add_dynamic_partitions(keys.wal_partitions_name, batch)
        yield from _files(keys, catalog, found.files, batch)
    ids = sorted(frozenset().union(*found.base_backups.values()))
    if ids:
        instance.add_dynamic_partitions(keys.base_backup_partitions_name, ids)
        yield from _base_backups(keys, catalog, found.base_backups)
        yield from newest_again(instance, keys, catalog, found.base_backups)


def _files(keys: Keys, catalog: Catalog, wanted: Names, batch: Sequence[str]) -> Iterator[dg.AssetMaterialization]:
    """Yield the records of a batch. Where two clusters have a file of one name, the newer cluster's file counts."""
    files, copies = catalog.files.files_of(batch), catalog.files.copies_of(batch)
    newest = {name: system_identifier for system_identifier, name in sorted(files)}
    for name in batch:
        if name not in newest:
            continue  # expired a moment ago
        file_key = (newest[name], name)
        for store, copy in copies.get(file_key, {}).items():
            if copy.status is CopyStatus.VERIFIED and name in wanted.get(store, ()):
                seconds = {"compress": copy.encoding.seconds} if copy.encoding is not None else {}
                yield segment_materialization(keys, files[file_key], copy, seconds)


def _base_backups(keys: Keys, catalog: Catalog, wanted: Names) -> Iterator[dg.AssetMaterialization]:
    backups = {one.backup_id: one for one in catalog.base_backups.all()}
    for copy in catalog.base_backups.copies():
        if copy.backup_id in wanted.get(copy.store, ()) and copy.backup_id in backups:
            yield backup_materialization(keys, backups[copy.backup_id], recorded_outcome(copy))
