"""Tests the subject of a run, its cluster, and whether a person started it."""

import dagster as dg
import pytest

from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.runs.subject import is_by_hand, is_of, subject_of

KEYS = Keys("main")


def ad_hoc(*assets: str, **tags: str) -> dg.DagsterRun:
    """A run that a person started in the UI."""
    keys = frozenset(dg.AssetKey(asset.split("/")) for asset in assets)
    named = {f"dagster/{name}": value for name, value in tags.items()}
    return dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=keys, tags=named)


@pytest.mark.parametrize(
    ("run", "subject"),
    [
        (dg.DagsterRun(job_name="archive_wal"), "archive_wal"),
        (ad_hoc("main/wal_segment/b2"), "main/wal_segment/b2"),
        (ad_hoc("main/cost", partition="x"), "main/cost of x"),
        (
            ad_hoc("main/b", "main/a", asset_partition_range_start="1", asset_partition_range_end="9"),
            "main/a, main/b of 1 to 9",
        ),
        (ad_hoc(*(f"main/{name}" for name in "abcdef")), "main/a, main/b, main/c, main/d and 2 more"),
    ],
)
def test_subject(run: dg.DagsterRun, subject: str) -> None:
    """The subject is the job's name, or the assets with the partitions."""
    assert subject_of(run) == subject


def test_whose_and_how() -> None:
    """The tag names a run's cluster, or else its assets do; only a person starts restores and runs without a job."""
    tagged = dg.DagsterRun(job_name="x", tags={"wal_pipeline/cluster": "main"})
    assert is_of(tagged, KEYS)
    assert not is_of(tagged, Keys("other"))
    assert is_of(ad_hoc("main/cost"), KEYS)
    assert not is_of(ad_hoc("main/cost", "other/cost"), KEYS)
    assert not is_of(dg.DagsterRun(job_name="x"), KEYS)
    assert [is_by_hand(run) for run in (tagged, ad_hoc("main/cost"), dg.DagsterRun(job_name="restore_cluster"))] == [
        False,
        True,
        True,
    ]
