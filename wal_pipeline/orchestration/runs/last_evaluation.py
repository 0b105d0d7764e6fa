"""Finds the last evaluation of an asset check."""

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


def last_evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> AssetCheckExecutionRecord | None:
    """Return the record of a check's last evaluation; None where there was none."""
    found = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=_EVALUATED)
    return found[0] if found else None
