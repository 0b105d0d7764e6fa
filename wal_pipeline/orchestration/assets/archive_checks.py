"""Defines the asset checks on stores and spool, the job that evaluates them, and the freshness policies."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from wal_pipeline.orchestration.keys import BACKUP_CHECK, CHECK_JOB, DRILL_CHECK, TAIL_CHECK, WINDOW_CHECK, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.health.asset_checks import CheckVerdict
    from wal_pipeline.commands.health.facts import HealthFacts, StoreFacts
    from wal_pipeline.commands.health.rules import HealthLimits

_DESCRIPTIONS = {
    "no_gap": "No segment is missing between those that this store holds. A past gap is a warning.",
    "every_file": "This store has a verified copy of every file of the archive, except those that wait in the spool.",
    "newest_fresh": "Files that PostgreSQL archives reach this store within the lag goal.",
}
_WINDOW_DESCRIPTIONS = {
    "can_be_restored": "The cluster can be restored from {store} alone now.",
    "no_gap_inside": "Each moment from the first base backup on {store} to the end of the window can be restored.",
}


_TAIL_DESCRIPTION = (
    "The store has each commit within WAL_PIPELINE_SHIP_INTERVAL_SECONDS and a second, in 99 of 100 cases of the last "
    "hour. Red where the tail is older than that by more than a minute now, where half of the hour's commits came too "
    "late, where nothing ships, and where the store holds another history. A warning where the last hour was too late "
    "and this moment is not, during a pause, and before anything was shipped. Never green where nobody could look."
)


def build_archive_checks(keys: Keys, stores: Sequence[str], *, tails: bool = False) -> dg.AssetChecksDefinition:
    """Return the checks of one cluster; one look at the facts answers all of them. ``tails``: the tail has some too."""
    specs = [
        dg.AssetCheckSpec(name, asset=keys.wal_segment(store), description=_DESCRIPTIONS[name])
        for store in stores
        for name in _DESCRIPTIONS
    ]
    specs += [
        dg.AssetCheckSpec(
            WINDOW_CHECK.format(name=name, store=store),
            asset=keys.recovery_window,
            description=text.format(store=store),
        )
        for store in stores
        for name, text in _WINDOW_DESCRIPTIONS.items()
    ]
    for store in stores:
        text = "The newest base backup that can be restored from this store is young enough."
        specs.append(dg.AssetCheckSpec(BACKUP_CHECK, asset=keys.base_backup(store), description=text))
        text = f"The last recovery drill from {store} passed and is recent enough. A warning until the first is due."
        specs.append(dg.AssetCheckSpec(DRILL_CHECK.format(store=store), asset=keys.recovery_drill, description=text))
    text = "The spool is well below its limit, WAL_PIPELINE_SPOOL_LIMIT_BYTES."
    specs.append(dg.AssetCheckSpec("under_limit", asset=keys.spool, description=text))

    if tails:
        specs += [
            dg.AssetCheckSpec(TAIL_CHECK, asset=keys.wal_tail(store), description=_TAIL_DESCRIPTION) for store in stores
        ]

    # A backfill also runs the checks of its assets, and fails where it cannot choose some of them.
    @dg.multi_asset_check(name="archive_checks", specs=specs, can_subset=True)
    @with_plain_errors
    def archive_checks(
        context: dg.AssetCheckExecutionContext, wal_pipeline: WalPipelineResource
    ) -> Iterator[dg.AssetCheckResult]:
        chosen = context.op_execution_context.selected_asset_check_keys
        wanted = {(key.asset_key, key.name) for key in chosen}
        for result in _results(keys, wal_pipeline.open()):
            if (result.asset_key, result.check_name) in wanted:
                yield result

    return archive_checks


def _results(keys: Keys, pipeline: Pipeline) -> Iterator[dg.AssetCheckResult]:
    """Yield the result of each check, from one look at the facts."""
    from wal_pipeline.commands.health.asset_checks import (
        SEGMENT_CHECKS,
        base_backup_fresh,
        drill_passed,
        spool_under_limit,
        tail_on_time,
    )
    from wal_pipeline.commands.health.facts import look_at_everything
    from wal_pipeline.wiring.health import fact_sources, health_limits

    facts, limits = look_at_everything(fact_sources(pipeline)), health_limits(pipeline)
    for store in facts.stores:
        for name, check in SEGMENT_CHECKS.items():
            yield _result(keys.wal_segment(store.store), name, check(facts, limits, store))
        yield _result(keys.base_backup(store.store), BACKUP_CHECK, base_backup_fresh(facts, limits, store))
        yield _result(keys.recovery_drill, DRILL_CHECK.format(store=store.store), drill_passed(facts, limits, store))
        if facts.shipping.goal is not None:
            yield _result(keys.wal_tail(store.store), TAIL_CHECK, tail_on_time(facts, store))
        for check_name, verdict in window_verdicts(facts, limits, store):
            yield _result(keys.recovery_window, check_name, verdict)
    yield _result(keys.spool, "under_limit", spool_under_limit(facts, limits))


def window_verdicts(
    facts: "HealthFacts", limits: "HealthLimits", store: "StoreFacts"
) -> "Iterator[tuple[str, CheckVerdict]]":
    """Yield the names and verdicts of the checks of a store's recovery window."""
    from wal_pipeline.commands.health.asset_checks import WINDOW_CHECKS

    for name, check in WINDOW_CHECKS.items():
        yield WINDOW_CHECK.format(name=name, store=store.store), check(facts, limits, store)


def build_check_job(keys: Keys, checks: dg.AssetChecksDefinition) -> UnresolvedAssetJobDefinition:
    """Return the job that evaluates all checks now."""
    return dg.define_asset_job(
        CHECK_JOB,
        selection=dg.AssetSelection.checks(checks),
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Evaluate the checks of gaps, files, freshness, base backups, drills and the spool, from the records."
            " Reads no object from a store: verify_archive does that."
        ),
    )


def with_freshness(assets: dg.AssetsDefinition, window: timedelta) -> dg.AssetsDefinition:
    """Return assets with Dagster's freshness policy: a failure after ``window``, a warning at four fifths of it.

    The segment assets have none, because an idle server archives nothing and is still fresh.
    """
    policy = dg.FreshnessPolicy.time_window(fail_window=window, warn_window=window * 0.8)
    return assets.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=policy))


def evaluation(key: dg.AssetKey, name: str, verdict: "CheckVerdict") -> dg.AssetCheckEvaluation:
    """Return a verdict as an event that any run may yield, not only the check's own."""
    return dg.AssetCheckEvaluation(
        key, name, verdict.passed, _numbers(verdict), severity=_severity(verdict), description=verdict.message
    )


def _result(key: dg.AssetKey, name: str, verdict: "CheckVerdict") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=verdict.passed,
        asset_key=key,
        check_name=name,
        severity=_severity(verdict),
        description=verdict.message,
        metadata=_numbers(verdict),
    )


def _severity(verdict: "CheckVerdict") -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.WARN if verdict.is_warning else dg.AssetCheckSeverity.ERROR


def _numbers(verdict: "CheckVerdict") -> dict[str, dg.MetadataValue]:
    return {
        name: dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(round(value, 1))
        for name, value in verdict.numbers.items()
    }
