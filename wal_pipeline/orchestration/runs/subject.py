"""Names the subject of a run: an alert opens under it, and a later success is found by it."""

from collections.abc import Mapping
from typing import Any, Final

import dagster as dg
from dagster._core.storage.tags import AUTO_MATERIALIZE_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG

from wal_pipeline.orchestration.keys import (
    CLONE_JOB,
    CLUSTER_TAG,
    FIND_JOB,
    PAUSE_JOB,
    RESCUE_JOB,
    RESTORE_JOB,
    RESUME_JOB,
    Keys,
)

_AD_HOC: Final = "__"  # Dagster's name for the job of whatever a person materializes in the UI
_PARTITION_TAGS: Final = (
    "dagster/partition",
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
)
_MOST_NAMED: Final = 4
_BY_HAND: Final = (RESTORE_JOB, FIND_JOB, CLONE_JOB, RESCUE_JOB, PAUSE_JOB, RESUME_JOB)
_STARTED_BY: Final = (SCHEDULE_NAME_TAG, SENSOR_NAME_TAG, AUTO_MATERIALIZE_TAG)


def subject_of(run: dg.DagsterRun) -> str:
    """Return the job's name or, for a run without a job, its assets and partitions."""
    if not run.job_name.startswith(_AD_HOC):
        return run.job_name
    names = sorted(key.to_user_string() for key in _assets(run))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    partitions = [run.tags[tag] for tag in _PARTITION_TAGS if tag in run.tags]
    return ", ".join(names[:_MOST_NAMED]) + more + (f" of {' to '.join(partitions)}" if partitions else "")


def is_of(run: dg.DagsterRun, keys: Keys) -> bool:
    """Whether a run belongs to this cluster, by its tag or, where a person started it in the UI, by its assets."""
    tagged = run.tags.get(CLUSTER_TAG)
    if tagged is not None:
        return tagged == keys.cluster
    assets = _assets(run)
    return bool(assets) and all(key.path[0] == keys.cluster for key in assets)


def is_by_hand(run: dg.DagsterRun) -> bool:
    """Whether only a person starts such a run, so that no later run need ever succeed."""
    return run.job_name.startswith(_AD_HOC) or run.job_name in _BY_HAND


def was_started_by_a_person(run: dg.DagsterRun) -> bool:
    """Whether neither a schedule nor a sensor started the run, so that a person is looking at it."""
    return not any(tag in run.tags for tag in _STARTED_BY)


def alert_is_by_hand(subject: str, details: Mapping[str, Any]) -> bool:
    """Whether an alert is about a run that a person started by hand."""
    return bool(details.get("by_hand", subject in _BY_HAND or subject.startswith(_AD_HOC)))


def _assets(run: dg.DagsterRun) -> frozenset[dg.AssetKey]:
    return frozenset(run.asset_selection or ()) | {key.asset_key for key in run.asset_check_selection or ()}
