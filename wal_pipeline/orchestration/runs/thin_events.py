"""Removes most of the events that a sensor reported each minute: Dagster keeps each for ever."""

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import dagster as dg
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from sqlalchemy import ColumnElement, Connection, and_, delete, select
from sqlalchemy.exc import SQLAlchemyError

_log = logging.getLogger(__name__)
_SLOT: Final = timedelta(minutes=10)
_LOOK_BACK: Final = timedelta(hours=2)
_TYPES: Final = (dg.DagsterEventType.ASSET_MATERIALIZATION.value, dg.DagsterEventType.ASSET_OBSERVATION.value)


def thin_events(instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey], now: datetime, before: datetime) -> int:
    """Remove events of no run: of the last two hours all but one in ten minutes, and all older than ``before``.

    The newest of each asset stays. Plots keep a point for each ten minutes. Returns how many were removed. A storage
    that refuses, such as a busy SQLite, is left for the next minute.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    try:
        return sum(_thin(storage, asset, now, before) for asset in assets)
    except SQLAlchemyError as error:
        _log.warning("events that were reported each minute stay: %s", error)
        return 0


def _thin(storage: SqlEventLogStorage, asset: dg.AssetKey, now: datetime, before: datetime) -> int:
    with storage.index_connection() as connection:
        recent = _moments(connection, asset, now)
        removed = _remove(connection, asset, recent, before)
    if isinstance(storage, SqliteEventLogStorage):  # it writes such events twice
        with storage.run_connection(RUNLESS_RUN_ID) as connection:
            _remove(connection, asset, recent, before)
    return removed


def surplus(moments: Sequence[datetime]) -> list[datetime]:
    """Return the moments, in order, that are followed by another one in the same ten minutes."""
    return [one for one, after in pairwise(moments) if _slot(one) == _slot(after)]


def _slot(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp() // _SLOT.total_seconds())


def _moments(connection: Connection, asset: dg.AssetKey, now: datetime) -> list[datetime]:
    table = SqlEventLogStorageTable
    wanted = and_(_of(asset), table.c.timestamp > _plain(now - _LOOK_BACK))
    return list(connection.execute(select(table.c.timestamp).where(wanted).order_by(table.c.id)).scalars())


def _remove(connection: Connection, asset: dg.AssetKey, recent: Sequence[datetime], before: datetime) -> int:
    table, kept = SqlEventLogStorageTable, recent[-1:]
    gone = delete(table).where(_of(asset), table.c.timestamp.in_(surplus(recent)))
    removed = connection.execute(gone).rowcount
    if kept:  # else the newest one may itself be old
        old = delete(table).where(_of(asset), table.c.timestamp < _plain(before))
        removed += connection.execute(old).rowcount
    return removed


def _of(asset: dg.AssetKey) -> ColumnElement[bool]:
    table = SqlEventLogStorageTable
    return and_(
        table.c.asset_key == asset.to_string(),
        table.c.run_id == RUNLESS_RUN_ID,
        table.c.dagster_event_type.in_(_TYPES),
    )


def _plain(at: datetime) -> datetime:
    """Return a moment as Dagster's table has it: of UTC, without its zone."""
    return at.astimezone(UTC).replace(tzinfo=None)
