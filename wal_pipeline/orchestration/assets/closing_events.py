"""Reports, at the end of a run that stored copies, the recovery window and the checks of the run's assets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg

from wal_pipeline.commands.health.asset_checks import SEGMENT_CHECKS, base_backup_fresh
from wal_pipeline.commands.health.facts import HealthFacts, look_at_everything
from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.orchestration.assets.archive_checks import evaluation, window_verdicts
from wal_pipeline.orchestration.assets.recovery_window import window_materialization
from wal_pipeline.orchestration.keys import BACKUP_CHECK, CONTENT_CHECK, NAMES_CHECK, VERIFIED_AT, Keys
from wal_pipeline.orchestration.runs.last_evaluation import last_evaluation
from wal_pipeline.wiring.pipeline import Pipeline

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
_SINCE, _SAID = "stored_since", "verification"


@dataclass(frozen=True)
class Stored:
    """How many files and base backups a run stored and verified itself, by store.

    A store with 0 got new records in Dagster of copies that were stored earlier.
    """

    files: Mapping[str, int] = field(default_factory=dict)
    base_backups: Mapping[str, int] = field(default_factory=dict)


def closing_events(
    keys: Keys, pipeline: Pipeline, instance: dg.DagsterInstance, stored: Stored, log: "dg.DagsterLogManager"
) -> Iterator[Event]:
    """Yield the recovery windows of this moment, and the checks of the assets that this run materialized.

    Without these events the UI would call each check older than the newest materialization. A failure here only
    warns, because the copies are stored whether or not this screen is up to date.
    """
    from wal_pipeline.wiring.health import fact_sources, health_limits

    try:
        # PostgreSQL is asked: else the window says "at most" where the health sensor knows that nothing is missing.
        facts, limits = look_at_everything(fact_sources(pipeline)), health_limits(pipeline)
        yield window_materialization(keys, facts)
        yield from _facts_checks(keys, facts, limits, stored)
        names = (NAMES_CHECK, CONTENT_CHECK) if pipeline.settings.read_back else (NAMES_CHECK,)
        counts = {keys.wal_segment(store): count for store, count in stored.files.items()}
        counts |= {keys.base_backup(store): count for store, count in stored.base_backups.items()}
        for check in (dg.AssetCheckKey(asset, name) for asset in counts for name in names):
            carried = carry_on(instance, check, counts[check.asset_key])
            if carried is not None:
                yield carried
    except Exception as error:  # noqa: BLE001 - the files are archived, whatever fails here
        log.warning(f"the recovery window was not brought up to date: {type(error).__name__}: {error}")


def carry_on(instance: dg.DagsterInstance, key: dg.AssetCheckKey, stored: int) -> dg.AssetCheckEvaluation | None:
    """Return the verdict of the last verification, with the number of copies stored and verified since.

    The verdict stays: only the next verification can improve it. None where there was no verification yet.
    """
    record = last_evaluation(instance, key)
    last = None if record is None else record.evaluation
    if record is None or last is None:
        return None
    metadata = dict(last.metadata)
    before = metadata.get(_SINCE)
    since = stored + ((before.value or 0) if isinstance(before, dg.IntMetadataValue) else 0)
    metadata.setdefault(_SAID, dg.MetadataValue.text(last.description or ""))
    metadata.setdefault(VERIFIED_AT, dg.MetadataValue.timestamp(record.create_timestamp))
    metadata[_SINCE] = dg.MetadataValue.int(since)
    said = str(metadata[_SAID].value)
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=last.passed,
        severity=last.severity,
        description=f"{said}; copies stored and verified since that verification: {since}" if since else said,
        metadata=metadata,
    )


def _facts_checks(
    keys: Keys, facts: HealthFacts, limits: HealthLimits, stored: Stored
) -> Iterator[dg.AssetCheckEvaluation]:
    for store in facts.stores:
        for check_name, verdict in window_verdicts(facts, limits, store):
            yield evaluation(keys.recovery_window, check_name, verdict)
        if store.store in stored.files:
            for check_name, check in SEGMENT_CHECKS.items():
                yield evaluation(keys.wal_segment(store.store), check_name, check(facts, limits, store))
        if store.store in stored.base_backups:
            verdict = base_backup_fresh(facts, limits, store)
            yield evaluation(keys.base_backup(store.store), BACKUP_CHECK, verdict)
