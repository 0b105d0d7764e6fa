"""Removes old records from Dagster: partitions that no store holds, runs, ticks and check results."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from sqlalchemy import delete, func, select

from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.runs.subject import is_of

_FINISHED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE: Final = 200
_LOOKED_AT_PER_REMOVED: Final = 5
CHECKS_KEPT_FOR: Final = timedelta(days=14)


@dataclass(frozen=True)
class Purged:
    """How many records were removed from Dagster."""

    partitions: int
    runs: int


def remove_partitions(instance: dg.DagsterInstance, name: str, known: Iterable[str], held: frozenset[str]) -> int:
    """Remove the ``known`` partitions that are not ``held``; return how many."""
    gone = [key for key in known if key not in held]
    for key in gone:
        instance.delete_dynamic_partition(name, key)
    return len(gone)


def purge_runs(instance: dg.DagsterInstance, keys: Keys, before: datetime, *, at_most: int) -> int:
    """Remove finished runs of this cluster that were created before a moment, the oldest first, with their events.

    A run stays while one of its materializations belongs to a partition that exists, or is an asset's latest one: the
    UI shows from it what is stored. One call removes ``at_most`` runs and looks at five times as many.
    """
    live = {
        name: frozenset(instance.get_dynamic_partitions(name))
        for name in (keys.wal_partitions_name, keys.base_backup_partitions_name)
    }
    partitions = frozenset().union(*live.values())
    removed = 0
    for run in _old_runs(instance, before, at_most * _LOOKED_AT_PER_REMOVED):
        if removed >= at_most:
            break
        if is_of(run, keys) and not _is_needed(instance, run.run_id, partitions):
            instance.delete_run(run.run_id)
            removed += 1
    return removed


def location_of(run: dg.DagsterRun) -> str | None:
    """Return the name of a run's code location; None where Dagster does not know it."""
    origin = run.remote_job_origin
    return None if origin is None else origin.repository_origin.code_location_origin.location_name


def purge_ticks(instance: dg.DagsterInstance, location: str | None, before: datetime) -> None:
    """Remove older ticks of a code location's schedules and sensors. dagster.yaml may remove them sooner.

    Other clusters of the instance have code locations and a retention of their own.
    """
    if instance.schedule_storage is None or location is None:
        return
    for state in instance.all_instigator_state():
        if state.origin.repository_origin.code_location_origin.location_name == location:
            instance.purge_ticks(state.instigator_origin_id, state.selector_id, before.timestamp())


def purge_checks(instance: dg.DagsterInstance, keys: Keys, before: datetime) -> int:
    """Remove this cluster's older check results, except the newest of each check; return how many.

    Each archiving run evaluates a dozen checks, and Dagster keeps these records when it deletes the run.
    """
    storage, table = instance.event_log_storage, AssetCheckExecutionsTable
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    running = table.c.execution_status == AssetCheckExecutionRecordStatus.PLANNED.value
    newest = select(func.max(table.c.id)).group_by(table.c.asset_key, table.c.check_name, running)
    ours = dg.AssetKey([keys.cluster, ""]).to_string().removesuffix('""]')
    old = delete(table).where(
        table.c.asset_key.startswith(ours, autoescape=True),
        table.c.create_timestamp < before.astimezone(UTC).replace(tzinfo=None),
        table.c.id.not_in(newest.scalar_subquery()),
    )
    with storage.index_connection() as connection:
        return int(connection.execute(old).rowcount)


def _old_runs(instance: dg.DagsterInstance, before: datetime, limit: int) -> Iterator[dg.DagsterRun]:
    wanted, cursor, seen = dg.RunsFilter(statuses=_FINISHED, created_before=before), None, 0
    while seen < limit:
        page = instance.get_runs(wanted, cursor=cursor, limit=min(_PAGE, limit - seen), ascending=True)
        if not page:
            return
        cursor, seen = page[-1].run_id, seen + len(page)
        yield from page


def _is_needed(instance: dg.DagsterInstance, run_id: str, partitions: frozenset[str]) -> bool:
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = record.dagster_event
        if event is None or event.asset_key is None:
            continue
        if event.partition is not None and event.partition in partitions:
            return True
        latest = instance.get_latest_materialization_event(event.asset_key) if event.partition is None else None
        if latest is not None and latest.run_id == run_id:
            return True
    return False
