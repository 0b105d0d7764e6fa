"""Defines the verification as asset checks, by names and sizes or by content, and its job."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.orchestration.assets.wal.segment_metadata import segment_materialization
from wal_pipeline.orchestration.keys import CONTENT_CHECK, NAMES_CHECK, VERIFIED_AT, VERIFY_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.orchestration.runs.last_evaluation import last_evaluation
from wal_pipeline.text import counted, size
from wal_pipeline.wiring.verify import verifier

if TYPE_CHECKING:
    from wal_pipeline.commands.verify.last_results import StoreResult

OP_NAME = "verification"
_DESCRIPTIONS = {
    NAMES_CHECK: "This store holds every object that retention keeps, each with the size that was stored.",
    CONTENT_CHECK: "The bytes that the last deep verification read back from this store are those that were stored.",
}


class VerifyConfig(dg.Config):
    """``deep``: also read the content of ``share`` of the bytes. ``repair``: refill from the other store.

    For an unset field the settings count.
    """

    deep: bool = False
    share: float | None = None
    repair: bool | None = None


def build_verification_checks(keys: Keys, stores: Sequence[str]) -> dg.AssetChecksDefinition:
    """Return the checks of every store's assets; one verification answers all of them."""
    assets = [asset for store in stores for asset in (keys.wal_segment(store), keys.base_backup(store))]
    specs = [
        dg.AssetCheckSpec(name, asset=asset, description=text)
        for asset in assets
        for name, text in _DESCRIPTIONS.items()
    ]

    # A backfill also runs the checks of its assets. It must fill those assets only, and not read every store.
    @dg.multi_asset_check(name=OP_NAME, specs=specs, can_subset=True)
    @with_plain_errors
    def verification(  # type: ignore[no-untyped-def]
        context: dg.AssetCheckExecutionContext, config: VerifyConfig, wal_pipeline: WalPipelineResource
    ):
        if context.run.asset_selection:
            context.log.info("not verified: this run fills assets, the job verify_archive verifies them")
            return
        from wal_pipeline.commands.verify.last_results import results_of

        pipeline = wal_pipeline.open()
        share = config.share or pipeline.settings.deep_verify_share
        repair = pipeline.settings.verify_repair if config.repair is None else config.repair
        done = verifier(pipeline).verify(share=share if config.deep else None, repair=repair)
        for event in done.refilled:
            context.log.info(f"{event.file.name} was refilled on {event.copy.store}")
            yield segment_materialization(keys, event.file, event.copy, event.seconds)
        chosen = context.op_execution_context.selected_asset_check_keys
        for result in (one for of_store in results_of(done) for one in check_results(keys, of_store)):
            if _key_of(result) in chosen:
                yield result

    return verification


def check_results(keys: Keys, result: "StoreResult") -> Iterator[dg.AssetCheckResult]:
    """Yield the check results of one asset: the one of content only where content was read."""
    from wal_pipeline.commands.verify.results import ItemKind

    asset = (keys.wal_segment if result.kind is ItemKind.WAL_FILE else keys.base_backup)(result.store)
    for name in (NAMES_CHECK, CONTENT_CHECK) if result.is_deep else (NAMES_CHECK,):
        yield dg.AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=result.is_right,
            severity=dg.AssetCheckSeverity.ERROR,
            description=result.sentence,
            metadata=_metadata(result),
        )


def unshown_results(instance: dg.DagsterInstance, keys: Keys, catalog: Catalog) -> list[dg.AssetCheckEvaluation]:
    """Return the verdicts of verifications that Dagster does not show, as after 'wal-pipeline verify'.

    Raises: CatalogError.
    """
    from wal_pipeline.commands.verify.last_results import read_results

    last = [one for result in read_results(catalog) for one in check_results(keys, result)]
    newest = {_key_of(one): one for one in last}  # names and sizes may be of a later one than the content
    return [
        dg.AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=one.passed,
            metadata=one.metadata,
            severity=one.severity,
            description=one.description,
        )
        for key, one in newest.items()
        if _verified_at(last_evaluation(instance, key)) != one.metadata[VERIFIED_AT]
    ]


def _key_of(result: dg.AssetCheckResult) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(result.asset_key or dg.AssetKey([]), result.check_name or "")


def _verified_at(record: AssetCheckExecutionRecord | None) -> dg.MetadataValue | None:
    evaluation = None if record is None else record.evaluation
    return None if evaluation is None else evaluation.metadata.get(VERIFIED_AT)


def build_verification_job(keys: Keys, checks: dg.AssetChecksDefinition) -> UnresolvedAssetJobDefinition:
    """Return the job that verifies every store of one cluster."""
    return dg.define_asset_job(
        VERIFY_JOB,
        selection=dg.AssetSelection.checks(checks),
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Compare the stores with each other and with the catalog. With deep, also read back the share that "
            "was read longest ago. A missing or damaged copy is refilled from a good one; where no store has a "
            "good one, an alert is opened."
        ),
    )


def _metadata(result: "StoreResult") -> dict[str, dg.MetadataValue]:
    """Return the numbers, those first that a person on call asks for."""
    found: dict[str, dg.MetadataValue] = {
        "faults": dg.MetadataValue.int(result.faults),
        "lost": dg.MetadataValue.int(result.lost),
        "first_faults": dg.MetadataValue.md("\n".join(f"- {one}" for one in result.first_faults) or "none"),
        "unrecorded": dg.MetadataValue.int(result.unrecorded),
        "copies": dg.MetadataValue.int(result.copies),
        "stored": dg.MetadataValue.text(size(result.stored_bytes)),
        VERIFIED_AT: dg.MetadataValue.timestamp(result.begun_at),
    }
    if result.is_deep:
        found["read"] = dg.MetadataValue.text(f"{counted(result.read, 'object')}, {size(result.read_bytes)}")
    return found
