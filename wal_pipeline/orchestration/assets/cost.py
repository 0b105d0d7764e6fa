"""Defines the cost of the archive as an asset whose numbers the UI plots, and its job."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from wal_pipeline.archive.cost import Cost, StoreCost, dollars
from wal_pipeline.orchestration.keys import COST_JOB, AssetGroup, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.orchestration.text_table import text_table
from wal_pipeline.text import billed_size


def build_cost_asset(keys: Keys, stores: Sequence[str]) -> dg.AssetsDefinition:
    """Return the asset of one cluster's cost."""

    @dg.asset(
        key=keys.cost,
        deps=[keys.wal_segment(store) for store in stores],
        group_name=keys.group(AssetGroup.COST),
        kinds={"s3"},
        description=f"{keys.title('cost')}. The cost of storage, of the last 30 days' requests and of one full "
        "restore, in US dollars a month for each store.",
    )
    @with_plain_errors
    def cost(wal_pipeline: WalPipelineResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from wal_pipeline.commands.cost.cost import current_cost

        pipeline = wal_pipeline.open()
        report = current_cost(pipeline.catalog, pipeline.settings.prices(), pipeline.clock())
        return dg.MaterializeResult(metadata=cost_metadata(report.cost))

    return cost


def build_cost_job(keys: Keys) -> UnresolvedAssetJobDefinition:
    """Return the job that computes the cost now."""
    return dg.define_asset_job(
        COST_JOB,
        selection=dg.AssetSelection.assets(keys.cost),
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described("Compute the cost of the archive."),
    )


def cost_metadata(cost: Cost) -> dict[str, dg.MetadataValue]:
    """Return the sentence, a table with a row for each store, and the numbers that the UI plots."""
    columns = ("store", "stored", "storage", "requests", "a month", "one restore")
    rows = [_row(store, one) for store, one in cost.stores.items()]
    said = f"{dollars(cost.month_usd)} a month, of which {dollars(cost.storage_usd)} is storage"
    found: dict[str, dg.MetadataValue] = {
        "answer": dg.MetadataValue.text(said),
        "stores": text_table(columns, rows),
        "USD a month": dg.MetadataValue.float(round(float(cost.month_usd), 3)),
    }
    for store, one in cost.stores.items():
        found[f"{store}: USD a month"] = dg.MetadataValue.float(round(float(one.month_usd), 3))
        found[f"{store}: stored MiB"] = dg.MetadataValue.float(round(one.stored_bytes / 2**20, 1))
    return found


def _row(store: str, one: StoreCost) -> tuple[str, ...]:
    usd = (one.storage_usd, one.requests_usd, one.month_usd, one.restore_usd)
    return (store, billed_size(one.stored_bytes), *map(dollars, usd))
