"""Defines a clock that a test moves."""

from datetime import datetime, timedelta

from wal_pipeline_tests.support.catalog_records import NOON


class TestClock:
    """A clock that a test moves."""

    __test__ = False

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, **delta: float) -> datetime:
        self.now += timedelta(**delta)
        return self.now
