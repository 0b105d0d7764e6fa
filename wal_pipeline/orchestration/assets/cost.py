"""Defines the cost of the archive as an asset whose numbers the UI plots, and its job."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from wal_pipeline.orchestration.keys import COST_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors


def build_cost_asset(keys: Keys, stores: Sequence[str]) -> dg.AssetsDefinition:
    """Return the asset of one cluster's cost."""

    @dg.asset(
        key=dg.AssetKey([keys.cluster, "cost"]),
        deps=[keys.wal_segment(store) for store in stores],
        group_name="cost",
        description="The cost of storage, of the last 30 days' requests and of one full restore, in US dollars a month "
        "for each store.",
    )
    @with_plain_errors
    def cost(wal_pipeline: WalPipelineResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from wal_pipeline.commands.cost.cost import cost_as_json, current_cost

        pipeline = wal_pipeline.open()
        report = current_cost(pipeline.catalog, pipeline.settings.prices(), pipeline.clock())
        values = cost_as_json(report.cost, report.usage)
        per_store = values.pop("stores")
        flat = values | {f"{store}/{name}": value for store, one in per_store.items() for name, value in one.items()}
        return dg.MaterializeResult(metadata=flat)

    return cost


def build_cost_job(keys: Keys) -> UnresolvedAssetJobDefinition:
    """Return the job that computes the cost now."""
    return dg.define_asset_job(
        COST_JOB,
        selection=dg.AssetSelection.assets(dg.AssetKey([keys.cluster, "cost"])),
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described("Compute the cost of the archive."),
    )
