"""Gives each area of the catalog its database, its cluster and its clock."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import ColumnElement, Table

from wal_pipeline.catalog.engine import Database

Clock = Callable[[], datetime]


class Area:
    """A part of the catalog that reads and writes the rows of one cluster only."""

    def __init__(self, database: Database, cluster: str, clock: Clock) -> None:
        self._database = database
        self._cluster = cluster
        self._clock = clock

    def _mine(self, table: Table) -> ColumnElement[bool]:
        return table.c.cluster == self._cluster
