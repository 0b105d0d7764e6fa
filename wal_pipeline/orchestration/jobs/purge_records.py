"""Removes old records from Dagster: partitions that no store holds, runs, ticks and check results."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, func, select

from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.runs.subject import is_of

_log = logging.getLogger(__name__)
_FINISHED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
# A partition is shown as failed while the failed run stays that was to materialize it.
_SHOWN_EVENTS: Final = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
)
_PAGE: Final = 200
_SQLITE_ENDS: Final = ("", "-wal", "-shm", "-journal")
CHECKS_KEPT_FOR: Final = timedelta(days=14)


@dataclass(frozen=True)
class Purged:
    """How many records were removed from Dagster. ``is_done``: no run is left that may go."""

    partitions: int
    runs: int
    is_done: bool = True


def remove_partitions(instance: dg.DagsterInstance, name: str, known: Iterable[str], held: frozenset[str]) -> int:
    """Remove the ``known`` partitions that are not ``held``; return how many."""
    gone = [key for key in known if key not in held]
    for key in gone:
        instance.delete_dynamic_partition(name, key)
    return len(gone)


def purge_runs(
    instance: dg.DagsterInstance,
    keys: Keys,
    before: datetime,
    *,
    at_most: int,
    max_seconds: float = math.inf,
    monotonic: Callable[[], float] = time.monotonic,
) -> int:
    """Remove this cluster's finished runs that were created before a moment, the oldest first; return how many.

    A run stays while one of its materializations belongs to a partition that exists, or is an asset's latest one: the
    UI shows from it what is stored, and from a failed one what is not. It ends when nothing is left that may go, after
    ``at_most`` runs, or after ``max_seconds``.
    """
    deadline = monotonic() + max_seconds
    needs = _Needs(instance, keys)
    removed = 0
    for page in _pages_of_old_runs(instance, before):
        needed = needs.among(page.runs)
        for run in page.runs:
            if removed >= at_most or monotonic() >= deadline:
                return removed
            if not is_of(run, keys) or run.run_id in needed:
                page.keep(run)
                continue
            _delete_run(instance, run.run_id)
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
    plain = before.astimezone(UTC).replace(tzinfo=None)
    is_old = and_(
        table.c.asset_key.startswith(ours, autoescape=True),
        table.c.create_timestamp < plain,
        table.c.id.not_in(newest.scalar_subquery()),
    )
    with storage.index_connection() as connection:
        _purge_events_of_no_run(
            connection, select(table.c.evaluation_event_storage_id).where(is_old, _of_no_run(table))
        )
        removed = int(connection.execute(delete(table).where(is_old)).rowcount)
    if isinstance(storage, SqliteEventLogStorage):  # it writes each of these events twice, and reads the second nowhere
        logged = SqlEventLogStorageTable
        with storage.run_connection(RUNLESS_RUN_ID) as connection:
            _purge_events_of_no_run(connection, select(logged.c.id).where(logged.c.timestamp < plain))
    return removed


def _purge_events_of_no_run(connection: Connection, ids: Select[tuple[int]]) -> None:
    """Remove the check evaluations that a sensor reported: Dagster deletes the others with their run."""
    logged = SqlEventLogStorageTable
    is_evaluation = logged.c.dagster_event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION.value
    connection.execute(delete(logged).where(_of_no_run(logged), is_evaluation, logged.c.id.in_(ids.scalar_subquery())))


def _of_no_run(table: Table) -> ColumnElement[bool]:
    return table.c.run_id == RUNLESS_RUN_ID


class _Page:
    """Some old runs, in the order of their creation. ``keep`` is called for each that stays."""

    def __init__(self, runs: Sequence[dg.DagsterRun], kept: list[str]) -> None:
        self.runs = runs
        self._kept = kept

    def keep(self, run: dg.DagsterRun) -> None:
        """Note that a run stays, so that the next page may begin after it."""
        self._kept.append(run.run_id)


def _pages_of_old_runs(instance: dg.DagsterInstance, before: datetime) -> Iterator[_Page]:
    """Yield the finished runs created before a moment, each once, whatever is removed meanwhile.

    A page begins after a run that stays: after one that is gone Dagster finds nothing at all. Where somebody else
    removed that run too, the page begins after the one that stayed before it.
    """
    wanted, kept = dg.RunsFilter(statuses=_FINISHED, created_before=before), list[str]()
    while True:
        runs = instance.get_runs(wanted, cursor=kept[-1] if kept else None, limit=_PAGE, ascending=True)
        if runs:
            yield _Page(runs, kept)
        elif kept and instance.get_run_by_id(kept[-1]) is None:
            kept.pop()
        else:
            return


class _Needs:
    """Which runs the UI still needs, by the partitions that exist now."""

    def __init__(self, instance: dg.DagsterInstance, keys: Keys) -> None:
        self._instance = instance
        names = (keys.wal_partitions_name, keys.base_backup_partitions_name)
        self._partitions = frozenset().union(*(instance.get_dynamic_partitions(name) for name in names))
        self._latest: dict[dg.AssetKey, str | None] = {}

    def among(self, runs: Sequence[dg.DagsterRun]) -> frozenset[str]:
        """Return the ids of those runs that are needed."""
        materialized = self._materialized([run.run_id for run in runs])
        return frozenset(
            run_id for run_id, asset, partition in materialized if self._is_needed(run_id, asset, partition)
        )

    def _is_needed(self, run_id: str, asset: dg.AssetKey, partition: str | None) -> bool:
        if partition is not None:
            return partition in self._partitions
        if asset not in self._latest:
            event = self._instance.get_latest_materialization_event(asset)
            self._latest[asset] = None if event is None else event.run_id
        return self._latest[asset] == run_id

    def _materialized(self, run_ids: Sequence[str]) -> Iterator[tuple[str, dg.AssetKey, str | None]]:
        """Yield what these runs materialized or were to materialize.

        One query serves all: a history of years has a hundred thousand runs.
        """
        storage, table = self._instance.event_log_storage, SqlEventLogStorageTable
        if not isinstance(storage, SqlEventLogStorage):
            yield from self._materialized_by_logs(run_ids)
            return
        these = select(table.c.run_id, table.c.asset_key, table.c.partition).where(
            table.c.run_id.in_(run_ids),
            table.c.dagster_event_type.in_([one.value for one in _SHOWN_EVENTS]),
        )
        with storage.index_connection() as connection:
            rows = connection.execute(these.distinct()).all()
        for run_id, asset, partition in rows:
            key = dg.AssetKey.from_db_string(asset)
            if key is not None:
                yield run_id, key, partition

    def _materialized_by_logs(self, run_ids: Sequence[str]) -> Iterator[tuple[str, dg.AssetKey, str | None]]:
        for run_id in run_ids:
            for record in self._instance.all_logs(run_id, of_type=set(_SHOWN_EVENTS)):
                event = record.dagster_event
                if event is not None and event.asset_key is not None:
                    yield run_id, event.asset_key, event.partition


def _delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove a run, its events and what Dagster itself leaves: the output of its steps, and its own SQLite file."""
    instance.delete_run(run_id)
    storage = instance.event_log_storage
    try:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        if isinstance(storage, SqliteEventLogStorage):
            for end in _SQLITE_ENDS:
                Path(f"{storage.path_for_shard(run_id)}{end}").unlink(missing_ok=True)
    except OSError as error:
        _log.warning("files of the removed run %s stay: %s", run_id, error)
