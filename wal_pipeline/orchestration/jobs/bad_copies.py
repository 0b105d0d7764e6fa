"""Defines the job that marks partitions as failed whose copy is missing or damaged, so that a backfill finds them."""

from collections.abc import Sequence

import dagster as dg

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.orchestration.jobs.unrecorded import Unrecorded, find_unrecorded
from wal_pipeline.orchestration.keys import BAD_COPIES_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.orchestration.runs.partition_statuses import plan_to_fail

COPIES_PER_RUN = 2000
_MOST_NAMED = 20


def build_bad_copies_job(keys: Keys) -> dg.JobDefinition:
    """Return the job of one cluster. Its run fails where it finds a bad copy: Dagster shows failed partitions so."""

    @dg.op(
        out=dg.Out(dg.Nothing),
        description="Compare the catalog with Dagster's records, and mark as failed the partitions whose copy is "
        "missing or damaged by the catalog. Changes nothing on the stores.",
    )
    @with_plain_errors
    def mark_bad_copies(context: dg.OpExecutionContext, wal_pipeline: WalPipelineResource) -> None:
        pipeline = wal_pipeline.open()
        catalog, stores = pipeline.catalog, pipeline.settings.stores
        found = find_unrecorded(context.instance, keys, catalog, stores, pipeline.clock())
        lines = _mark(context, keys, catalog, found)
        context.add_output_metadata({"marked": found.bad_count})
        if lines:
            raise dg.Failure(_told(lines), {"copies": dg.MetadataValue.md(_listed(lines))}, allow_retries=False)

    @dg.job(
        name=BAD_COPIES_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Show in Dagster the copies that were found to be missing or damaged, as by a verification. The run ends "
            "as failed on purpose, and its partitions with it: in the dialog of a backfill 'Failed and missing' "
            "chooses them. The record sensor starts it."
        ),
    )
    def report_bad_copies() -> None:
        mark_bad_copies()

    return report_bad_copies


def _mark(context: dg.OpExecutionContext, keys: Keys, catalog: Catalog, found: Unrecorded) -> list[str]:
    """Mark the partitions as failed, and return a line for each: why the copy is bad."""
    lines: list[str] = []
    for store, names in found.bad_files.items():
        chosen = sorted(names)[:COPIES_PER_RUN]
        plan_to_fail(context, keys.wal_segment(store), chosen)
        lines += _reasons(catalog, store, chosen)
    errors = {(copy.store, copy.backup_id): copy.last_error for copy in catalog.base_backups.copies()}
    for store, ids in found.bad_base_backups.items():
        plan_to_fail(context, keys.base_backup(store), sorted(ids))
        lines += [_line(store, one, errors.get((store, one))) for one in sorted(ids)]
    return lines


def _reasons(catalog: Catalog, store: str, names: Sequence[str]) -> list[str]:
    found = catalog.files.copies_of(names)
    errors = {name: of_file[store].last_error for (_, name), of_file in sorted(found.items()) if store in of_file}
    return [_line(store, name, errors.get(name)) for name in names]


def _line(store: str, name: str, error: str | None) -> str:
    return error if error and name in error else f"{store}: '{name}': {error or 'there is no good copy'}"


def _told(lines: Sequence[str]) -> str:
    more = "" if len(lines) == 1 else f"; {len(lines)} copies in all"
    return (
        f"{lines[0]}{more}\nHINT: Open the asset, choose Materialize and 'Failed and missing', and launch: that copies "
        "them again from a good copy. 'wal-pipeline verify --repair' does the same."
    )


def _listed(lines: Sequence[str]) -> str:
    rest = [f"- and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
    return "\n".join([*(f"- {line}" for line in lines[:_MOST_NAMED]), *rest])
