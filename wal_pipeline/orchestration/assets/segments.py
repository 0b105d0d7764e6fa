"""Defines one asset of WAL files for each store, and their backfill from the UI."""

from collections import Counter
from collections.abc import Sequence

import dagster as dg

from wal_pipeline.commands.archive_push.audit_trail import audited
from wal_pipeline.commands.archive_push.events import CopyFailed, CopyVerified
from wal_pipeline.orchestration.assets.per_store import chosen_partitions, store_specs
from wal_pipeline.orchestration.assets.wal.segment_metadata import segment_materialization
from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors


def build_segment_assets(keys: Keys, stores: Sequence[str]) -> dg.AssetsDefinition:
    """Return one asset for each store; their partitions are file names.

    The archiving run records their materializations. Materializing partitions here is a **backfill**: it copies only
    those files, only to the chosen stores, in one run for a range.
    """
    specs = store_specs(
        keys,
        stores,
        keys.wal_segment,
        group=AssetGroup.WAL,
        title="WAL on {store}",
        description="One partition for each archived file. Materialize partitions to copy them to {store} again, from "
        "the spool or from a verified copy on another store: 'Failed and missing' are those that lack a good copy.",
    )

    @dg.multi_asset(
        name="wal_segment",
        specs=specs,
        can_subset=True,
        partitions_def=keys.wal_partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    @with_plain_errors
    def wal_segment(context: dg.AssetExecutionContext, wal_pipeline: WalPipelineResource):  # type: ignore[no-untyped-def]
        from wal_pipeline.orchestration.assets.closing_events import Stored, closing_events
        from wal_pipeline.wiring.refill import refiller

        names = chosen_partitions(context)
        targets = [store for store in stores if keys.wal_segment(store) in context.selected_asset_keys]
        failed: list[CopyFailed] = []
        stored: Counter[str] = Counter()
        pipeline = wal_pipeline.open()
        for event in audited(refiller(pipeline).refill(names, targets), pipeline.audit, by=f"run {context.run.run_id}"):
            if isinstance(event, CopyVerified):
                context.log.info(f"{event.file.name} is on {event.copy.store}")
                stored[event.copy.store] += 1
                yield segment_materialization(keys, event.file, event.copy, event.seconds)
            elif isinstance(event, CopyFailed):
                context.log.error(f"{event.name} is not on {event.store}: {event.message}")
                failed.append(event)
        yield from closing_events(keys, pipeline, context.instance, Stored(stored), context.log)
        if failed:
            raise dg.Failure(
                f"{len(failed)} copies failed, first '{failed[0].name}': {failed[0].message}", allow_retries=False
            )

    return wal_segment
