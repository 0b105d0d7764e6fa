"""Defines the recovery drill as an asset with a check, and its job."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from wal_pipeline.orchestration.keys import DRILL_JOB, AssetGroup, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.orchestration.text_table import text_table
from wal_pipeline.text import length, moment_utc, size

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
                group_name=keys.group(AssetGroup.RECOVERY),
                kinds={"postgres"},
                description=f"{keys.title('recovery drill')}. A real restore from each store alone into a scratch "
                "cluster: started, compared with what the archive's records foretold, checked with pg_amcheck and your "
                "own SQL, measured, removed.",
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
        yield dg.MaterializeResult(asset_key=keys.recovery_drill, metadata=drill_metadata(results))
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


def drill_metadata(results: "Sequence[DrillResult]") -> dict[str, dg.MetadataValue]:
    """Return the sentence, a table with a row for each store, what was not proven, and the numbers that are plotted."""
    columns = ("store", "result", "RTO", "to", "segments", "downloaded")
    found: dict[str, dg.MetadataValue] = {
        "answer": dg.MetadataValue.text(drill_sentence(results)),
        "stores": text_table(columns, map(_row, results)),
    }
    for one in results:
        texts = {"error": one.error, "warnings": "\n".join(one.warnings), "not proven": "\n".join(one.not_proven)}
        found |= {f"{one.store}: {name}": dg.MetadataValue.text(text) for name, text in texts.items() if text}
    for one in results:
        numbers = {"RTO seconds": one.rto_seconds, "downloaded MiB": one.downloaded_bytes / 2**20}
        numbers |= {f"{phase} seconds": value for phase, value in one.seconds.items()}
        found |= {
            f"{one.store}: {name}": dg.MetadataValue.float(round(value, 1))
            for name, value in numbers.items()
            if value is not None
        }
    return found


def drill_sentence(results: "Sequence[DrillResult]") -> str:
    """Say from which stores the drill passed, in which time, and why it failed from the others."""
    passed = [f"{one.store} in {length(one.rto_seconds)}" for one in results if one.ok]
    failed = [f"from {one.store} it failed: {one.error}" for one in results if not one.ok]
    said = [f"the cluster was restored from {' and '.join(passed)}"] if passed else []
    return "; ".join([*said, *failed]) or "no store was tried"


def _row(one: "DrillResult") -> tuple[str, ...]:
    """Return a store's row. ``to`` is the last commit that the server reported."""
    reached = "-" if one.reached_commit_at is None else moment_utc(one.reached_commit_at)
    result = "passed" if one.ok else "failed"
    return one.store, result, length(one.rto_seconds), reached, str(one.segments), size(one.downloaded_bytes)
