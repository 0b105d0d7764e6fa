"""Defines the recovery drill as an asset with a check, and its job."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from wal_pipeline.orchestration.keys import DRILL_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors

if TYPE_CHECKING:
    from wal_pipeline.commands.drill.result import DrillResult

CHECK_NAME = "drill_passed"


def build_drill_asset(keys: Keys, stores: tuple[str, ...]) -> dg.AssetsDefinition:
    """Return the asset of real restores from each store."""

    @dg.multi_asset(
        name="drill_each_store",  # a job is called recovery_drill, and Dagster wants names of their own
        specs=[
            dg.AssetSpec(
                keys.recovery_drill,
                deps=[key for store in stores for key in (keys.base_backup(store), keys.wal_segment(store))],
                group_name="recovery",
                kinds={"postgres"},
                description="A real restore from each store alone into a scratch cluster: started, compared with what "
                "the archive's records foretold, checked with pg_amcheck and your own SQL, measured, removed.",
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                CHECK_NAME, asset=keys.recovery_drill, description="The last drill from every store passed."
            )
        ],
    )
    @with_plain_errors
    def drill_each_store(
        context: dg.AssetExecutionContext,
        wal_pipeline: WalPipelineResource,
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        from wal_pipeline.commands.drill.records import run_drills
        from wal_pipeline.wiring.drill import drills_of

        pipeline = wal_pipeline.open()
        by = f"run {context.run.run_id}"
        results = list(run_drills(drills_of(pipeline), stores, pipeline.catalog, pipeline.audit, by=by))
        yield dg.MaterializeResult(asset_key=keys.recovery_drill, metadata=_metadata(results))
        failed = [result for result in results if not result.ok]
        yield dg.AssetCheckResult(
            asset_key=keys.recovery_drill,
            check_name=CHECK_NAME,
            passed=not failed,
            description="; ".join(f"{result.store}: {result.error}" for result in failed) or None,
        )

    return drill_each_store


def build_drill_job(keys: Keys) -> UnresolvedAssetJobDefinition:
    """Return the job that runs a drill from every store."""
    return dg.define_asset_job(
        DRILL_JOB,
        selection=dg.AssetSelection.assets(keys.recovery_drill),
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described("A recovery drill from every store, now."),
    )


def _metadata(results: "list[DrillResult]") -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {}
    for result in results:
        prefix = f"{result.store}/"
        found[prefix + "ok"] = dg.MetadataValue.bool(result.ok)
        found[prefix + "target"] = dg.MetadataValue.text(result.target)
        found[prefix + "segments"] = dg.MetadataValue.int(result.segments)
        found[prefix + "downloaded_bytes"] = dg.MetadataValue.int(result.downloaded_bytes)
        found |= {f"{prefix}{phase}_seconds": dg.MetadataValue.float(value) for phase, value in result.seconds.items()}
        if result.rto_seconds is not None:
            found[prefix + "rto_seconds"] = dg.MetadataValue.float(result.rto_seconds)
        for name, at in (("predicted", result.predicted_commit_at), ("reached", result.reached_commit_at)):
            if at is not None:
                found[f"{prefix}{name}_commit_at"] = dg.MetadataValue.timestamp(at)
        if result.not_proven:
            found[prefix + "not_proven"] = dg.MetadataValue.text("\n".join(result.not_proven))
        if result.warnings:
            found[prefix + "warnings"] = dg.MetadataValue.text("\n".join(result.warnings))
        if result.error is not None:
            found[prefix + "error"] = dg.MetadataValue.text(result.error)
    return found
