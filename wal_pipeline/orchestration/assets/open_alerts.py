"""Defines the asset that lists what needs a person, as 'wal-pipeline alerts' does in a terminal."""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from wal_pipeline.archive.alerts import Alert
from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.orchestration.text_table import text_table
from wal_pipeline.text import length, moment_utc

_COLUMNS = ("severity", "what", "what mends it", "since", "found")
_FIRST_NAMED = 3


def build_alerts_asset(keys: Keys) -> dg.AssetsDefinition:
    """Return the asset. Materializing it by hand reads the open alerts again; it looks at nothing else."""

    @dg.asset(
        key=keys.open_alerts,
        deps=[keys.spool, keys.recovery_window, keys.recovery_drill],
        group_name=keys.group(AssetGroup.RECOVERY),
        kinds={"postgres"},
        description=f"{keys.title('what needs a person')}. The open alerts that nobody acknowledged, the most urgent "
        "first, with the command that mends each. The health sensor brings it up to date each minute. "
        "`wal-pipeline alerts` says the same in a terminal.",
    )
    @with_plain_errors
    def open_alerts(wal_pipeline: WalPipelineResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        pipeline = wal_pipeline.open()
        return dg.MaterializeResult(metadata=alerts_metadata(pipeline.catalog.alerts.active(), pipeline.clock()))

    return open_alerts


def alerts_materialization(keys: Keys, alerts: Sequence[Alert], now: datetime) -> dg.AssetMaterialization:
    """Return the materialization for the sensor, which is not the asset's own run."""
    return dg.AssetMaterialization(keys.open_alerts, metadata=alerts_metadata(alerts, now))


def alerts_metadata(alerts: Sequence[Alert], now: datetime) -> dict[str, dg.MetadataValue]:
    """Return the sentence, the table of alerts and the number, in this order."""
    ordered = sorted(alerts, key=lambda one: (one.acknowledged_at is not None, -one.severity.rank, one.opened_at))
    open_ones = [one for one in ordered if one.acknowledged_at is None]
    found: dict[str, dg.MetadataValue] = {"answer": dg.MetadataValue.text(alerts_sentence(open_ones))}
    if ordered:
        found["alerts"] = text_table(_COLUMNS, [_row(one, now) for one in ordered])
    return found | {"open": dg.MetadataValue.int(len(open_ones))}


def alerts_sentence(open_ones: Sequence[Alert]) -> str:
    """Say how many things need a person, and which, the most urgent first."""
    if not open_ones:
        return "nothing needs a person"
    need = "1 thing needs" if len(open_ones) == 1 else f"{len(open_ones)} things need"
    named = "; ".join(f"{one.kind.value} {one.subject}".strip() for one in open_ones[:_FIRST_NAMED])
    more = f"; and {len(open_ones) - _FIRST_NAMED} more" if len(open_ones) > _FIRST_NAMED else ""
    return f"{need} a person: {named}{more}"


def _row(alert: Alert, now: datetime) -> tuple[str, ...]:
    from wal_pipeline.commands.alerts.remedies import remedy

    severity = alert.severity.value
    if alert.acknowledged_at is not None:
        severity += f", acknowledged by {alert.acknowledged_by}: {alert.acknowledged_reason}"
    what = f"{alert.kind.value} {alert.subject}".strip()
    since = f"{moment_utc(alert.opened_at)} ({length(now - alert.opened_at)})"
    return severity, what, remedy(alert.kind), since, alert.message
