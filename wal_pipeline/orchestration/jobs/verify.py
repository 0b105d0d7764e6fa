"""Defines the verification as asset checks, by names and sizes or by content, and its job."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from wal_pipeline.orchestration.assets.segment_metadata import segment_materialization
from wal_pipeline.orchestration.keys import CONTENT_CHECK, NAMES_CHECK, VERIFY_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.wiring.verify import verifier

if TYPE_CHECKING:
    from wal_pipeline.commands.verify.results import Fault, Verification

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
        pipeline = wal_pipeline.open()
        share = config.share or pipeline.settings.deep_verify_share
        repair = pipeline.settings.verify_repair if config.repair is None else config.repair
        done = verifier(pipeline).verify(share=share if config.deep else None, repair=repair)
        for event in done.refilled:
            context.log.info(f"{event.file.name} was refilled on {event.copy.store}")
            yield segment_materialization(keys, event.file, event.copy, event.seconds)
        chosen = context.op_execution_context.selected_asset_check_keys
        for asset, result in check_results(keys, stores, done):
            if dg.AssetCheckKey(asset, result.check_name or "") in chosen:
                yield result

    return verification


def check_results(
    keys: Keys, stores: Sequence[str], done: "Verification"
) -> Iterator[tuple[dg.AssetKey, dg.AssetCheckResult]]:
    """Yield the check results of each store's assets; those of content only where content was read."""
    from wal_pipeline.commands.verify.results import ItemKind

    for store in stores:
        for kind, asset in (
            (ItemKind.WAL_FILE, keys.wal_segment(store)),
            (ItemKind.BASE_BACKUP, keys.base_backup(store)),
        ):
            faults = [one for one in done.open_faults if one.store == store and one.item.kind is kind]
            yield asset, _result(asset, NAMES_CHECK, done, store, faults)
            if done.is_deep:
                yield asset, _result(asset, CONTENT_CHECK, done, store, faults)


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


def _result(
    asset: dg.AssetKey, name: str, done: "Verification", store: str, faults: "Sequence[Fault]"
) -> dg.AssetCheckResult:
    tally, silent = done.tallies[store], done.silent.get(store)
    lost = sum(fault.item in done.lost for fault in faults)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not faults and silent is None,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_description(faults, lost, silent),
        metadata={
            "copies": dg.MetadataValue.int(tally.items),
            "stored_bytes": dg.MetadataValue.int(tally.stored_bytes),
            "read": dg.MetadataValue.int(tally.read),
            "read_bytes": dg.MetadataValue.int(tally.read_bytes),
            "faults": dg.MetadataValue.int(len(faults)),
            "lost": dg.MetadataValue.int(lost),
            "unrecorded": dg.MetadataValue.int(len(tally.unrecorded)),
            "first_faults": dg.MetadataValue.json([fault.message for fault in faults[:20]]),
        },
    )


def _description(faults: "Sequence[Fault]", lost: int, silent: str | None) -> str:
    if silent is not None:
        return f"not verified: {silent}"
    if not faults:
        return "all is as it should be"
    nowhere = f", {lost} of them have no good copy on any store" if lost else ""
    return f"{len(faults)} copies are missing or damaged{nowhere}; first: {faults[0].message}"
