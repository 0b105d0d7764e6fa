"""Defines one asset of base backups for each store, and their backfill from the UI."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import dagster as dg

from wal_pipeline.errors import WalPipelineError
from wal_pipeline.orchestration.assets.base_backup_metadata import backup_materialization, newest_again
from wal_pipeline.orchestration.assets.per_store import chosen_partitions, store_specs
from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors


def build_backup_assets(keys: Keys, stores: Sequence[str]) -> dg.AssetsDefinition:
    """Return one asset for each store; their partitions are backup ids.

    The job ``take_base_backup`` records their materializations. Materializing partitions here is a **backfill**: it
    copies only those base backups, only to the chosen stores, byte for byte from a good copy on another store.
    """
    specs = store_specs(
        keys,
        stores,
        keys.base_backup,
        group=AssetGroup.BASE_BACKUPS,
        title="base backups on {store}",
        description="One partition for each base backup. Materialize partitions to copy them to {store} again from "
        "another store. The job take_base_backup takes new ones.",
    )

    @dg.multi_asset(
        name="base_backup",
        specs=specs,
        can_subset=True,
        partitions_def=keys.base_backup_partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    @with_plain_errors
    def base_backup(context: dg.AssetExecutionContext, wal_pipeline: WalPipelineResource):  # type: ignore[no-untyped-def]
        from wal_pipeline.orchestration.assets.closing_events import Stored, closing_events
        from wal_pipeline.wiring.refill import base_backup_refill

        targets = [store for store in stores if keys.base_backup(store) in context.selected_asset_keys]
        pipeline = wal_pipeline.open()
        refill, audit, by = base_backup_refill(pipeline), pipeline.audit, f"run {context.run.run_id}"
        failed: list[str] = []
        stored: dict[str, list[str]] = defaultdict(list)
        for backup_id in sorted(chosen_partitions(context)):  # an incremental base backup comes after its parent
            for store in targets:
                try:
                    with audit.work("base backup", backup_id, by=by, store=store) as told:
                        outcome = refill(backup_id, store)
                        told["result"] = "refilled"
                except WalPipelineError as error:
                    context.log.error(error.message)
                    failed.append(error.message)
                else:
                    stored[store].append(backup_id)
                    yield backup_materialization(keys, outcome.result.manifest.record(), outcome.store)
        yield from newest_again(context.instance, keys, pipeline.catalog, stored)
        counts = Counter({store: len(ids) for store, ids in stored.items()})
        yield from closing_events(keys, pipeline, context.instance, Stored(base_backups=counts), context.log)
        if failed:
            raise dg.Failure(f"{len(failed)} base backups could not be copied, first: {failed[0]}", allow_retries=False)

    return base_backup
