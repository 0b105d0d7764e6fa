"""Writes many materializations into Dagster's event log in one transaction."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from logging import DEBUG

import dagster as dg
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage


def materialization_entry(step: StepExecutionContext, materialization: dg.AssetMaterialization) -> dg.EventLogEntry:
    """Return the entry that Dagster would write now if the step yielded this materialization."""
    message = materialization.description or "Materialized value."
    event = DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=step.job_name,
        step_handle=step.step.handle,
        node_handle=step.step.node_handle,
        step_kind_value=step.step.kind.value,
        logging_tags=step.event_tags,
        event_specific_data=StepMaterializationData(materialization),
        message=message,
        pid=os.getpid(),
    )
    return dg.EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=DEBUG,
        user_message=message,
        run_id=step.run_id,
        timestamp=time.time(),
        step_key=step.step.key,
        job_name=step.job_name,
        dagster_event=event,
    )


def store_entries(storage: EventLogStorage, entries: Iterable[dg.EventLogEntry]) -> None:
    """Write materializations of one run, in order for each asset.

    PostgreSQL's storage takes the entries of one asset at once. SQLite's would write each entry in two transactions
    with a connection each, which took 6 ms of CPU and two flushes of the disk.
    """
    by_asset: defaultdict[dg.AssetKey | None, list[dg.EventLogEntry]] = defaultdict(list)
    for entry in entries:
        by_asset[entry.get_dagster_event().asset_key].append(entry)
    for one_asset in by_asset.values():
        if isinstance(storage, SqliteEventLogStorage):
            _store_in_sqlite(storage, one_asset)
        else:
            storage.store_event_batch(one_asset)


def _store_in_sqlite(storage: SqliteEventLogStorage, entries: Sequence[dg.EventLogEntry]) -> None:
    """Write as ``SqliteEventLogStorage.store_event`` does: the run's own file first, then the file of all runs."""
    insert = storage.prepare_insert_event_batch(entries)
    with storage.run_connection(entries[0].run_id) as connection:
        connection.execute(insert)
    with storage.index_transaction() as connection:
        ids = sorted(connection.execute(insert.returning(SqlEventLogStorageTable.c.id)).scalars())
        storage._store_asset_event_tags(connection, entries, ids)
        storage._store_asset_event(connection, entries[-1], ids[-1])
