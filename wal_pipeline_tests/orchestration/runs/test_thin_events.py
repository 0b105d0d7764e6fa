"""Tests that events of no run are thinned out, those of runs and of other assets stay, and the newest one too."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.orchestration.runs.thin_events import surplus, thin_events

WINDOW, OTHER = dg.AssetKey(["main", "recovery_window"]), dg.AssetKey(["other", "recovery_window"])
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def count(instance: dg.DagsterInstance, key: dg.AssetKey) -> int:
    return len(instance.fetch_materializations(key, limit=1000).records)


def test_the_minutes_of_one_asset_go(instance: dg.DagsterInstance) -> None:
    """Of many events in one moment at most one in ten minutes stays, and only of this asset."""
    for key in (WINDOW, OTHER):
        for _ in range(5):
            instance.report_runless_asset_event(dg.AssetMaterialization(key))
    newest = instance.get_latest_materialization_event(WINDOW)
    removed = thin_events(instance, [WINDOW], datetime.now(UTC), LONG_AGO)
    assert removed == 5 - count(instance, WINDOW)
    assert 1 <= count(instance, WINDOW) <= 2  # two where ten minutes ended meanwhile
    assert count(instance, OTHER) == 5
    left = instance.get_latest_materialization_event(WINDOW)
    assert newest is not None
    assert left is not None
    assert left.timestamp == newest.timestamp


def test_the_newest_stays_however_old_it_is(instance: dg.DagsterInstance) -> None:
    """A cluster whose sensor stands still for months keeps what it showed last."""
    instance.report_runless_asset_event(dg.AssetMaterialization(WINDOW))
    later = datetime.fromtimestamp(time.time(), UTC) + timedelta(days=400)
    assert thin_events(instance, [WINDOW], later, later - timedelta(days=90)) == 0
    assert count(instance, WINDOW) == 1


@given(st.lists(st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 2)), max_size=30).map(sorted))  # noqa: DTZ001
def test_each_ten_minutes_keep_their_last(moments: list[datetime]) -> None:
    """Plots lose no ten minutes in which something was reported."""
    gone = surplus(moments)
    left = list(moments)
    for one in gone:
        left.remove(one)
    slots = {one.replace(minute=one.minute // 10 * 10, second=0, microsecond=0) for one in moments}
    assert len(left) == len(slots)
    assert not moments or left[-1] == moments[-1]
