"""Reads which partitions of an asset Dagster shows as good, and makes it show others as failed."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from logging import DEBUG

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from wal_pipeline.orchestration.runs.event_log import store_entries


@dataclass(frozen=True)
class ShownPartitions:
    """The partitions of one asset as the UI shows them: those that are materialized, and of these the failed ones."""

    materialized: frozenset[str]
    failed: frozenset[str]

    @property
    def good(self) -> frozenset[str]:
        """The partitions that the UI shows in green, and that the backfill dialog leaves out."""
        return self.materialized - self.failed


def shown_partitions(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: dg.DynamicPartitionsDefinition
) -> ShownPartitions:
    """Return what the UI shows of an asset's partitions: this is the answer that the web server gives."""
    value = get_and_update_asset_status_cache_value(instance, key, partitions, dynamic_partitions_loader=instance)
    if value is None:
        return ShownPartitions(frozenset(), frozenset())
    existing = frozenset(partitions.get_partition_keys(dynamic_partitions_store=instance))
    materialized = value.deserialize_materialized_partition_subsets(partitions).get_partition_keys()
    failed = value.deserialize_failed_partition_subsets(partitions).get_partition_keys()
    return ShownPartitions(existing & frozenset(materialized), existing & frozenset(failed))


def plan_to_fail(context: dg.OpExecutionContext, key: dg.AssetKey, partitions: Iterable[str]) -> None:
    """Record that this run was to materialize these partitions.

    The run has to fail: Dagster calls a partition failed where the newest run that was to materialize it failed
    without doing so. It has no other way to take a materialization back.
    """
    step = context.get_step_execution_context()
    events = [
        DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
            job_name=step.job_name,
            message=f"{key.to_user_string()} lacks a good copy of {partition}",
            event_specific_data=AssetMaterializationPlannedData(key, partition=partition),
            step_key=step.step.key,
            pid=os.getpid(),
        )
        for partition in partitions
    ]
    entries = [
        dg.EventLogEntry(  # type: ignore[no-untyped-call]
            error_info=None,
            level=DEBUG,
            user_message=event.message or "",
            run_id=context.run_id,
            timestamp=time.time(),
            step_key=step.step.key,
            job_name=step.job_name,
            dagster_event=event,
        )
        for event in events
    ]
    store_entries(context.instance.event_log_storage, entries)
