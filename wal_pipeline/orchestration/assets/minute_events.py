"""Shows the spool, the tails, the window and the open alerts in Dagster each minute in which something changed."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import dagster as dg

from wal_pipeline.orchestration.assets.archive_checks import evaluation, window_verdicts
from wal_pipeline.orchestration.assets.open_alerts import alerts_materialization
from wal_pipeline.orchestration.assets.recovery_window import window_materialization
from wal_pipeline.orchestration.assets.wal.spool import spool_materialization
from wal_pipeline.orchestration.assets.wal.tail import tail_observations
from wal_pipeline.orchestration.keys import DRILL_CHECK, TAIL_CHECK, Keys
from wal_pipeline.orchestration.runs.last_evaluation import last_evaluation
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.health.facts import HealthFacts
    from wal_pipeline.commands.health.rules import HealthLimits

Look = dg.AssetMaterialization | dg.AssetObservation
Event = Look | dg.AssetCheckEvaluation
SHOWN_EVERY: Final = timedelta(minutes=10)
EVALUATED_EVERY: Final = timedelta(hours=1)
_SAID = (dg.TextMetadataValue, dg.TableMetadataValue)


@dataclass(frozen=True)
class Shown:
    """When each asset was shown last, and a digest of what was said then, by the asset's key."""

    at: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Self:
        """Read what ``as_json`` wrote; None is a sensor's first tick."""
        return cls(value["at"], value["said"]) if value else cls()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"at": dict(self.at), "said": dict(self.said)}

    def is_due(self, event: Look, now: datetime) -> bool:
        """Whether the texts changed, or the last ones are ten minutes old: also an idle cluster was looked at."""
        key = event.asset_key.to_user_string()
        is_old = key not in self.at or abs(now - datetime.fromisoformat(self.at[key])) >= SHOWN_EVERY
        return is_old or self.said.get(key) != _digest(event)

    def after(self, events: list[Look], now: datetime) -> Self:
        """Return the state after these were shown."""
        at = {event.asset_key.to_user_string(): now.isoformat() for event in events}
        said = {event.asset_key.to_user_string(): _digest(event) for event in events}
        return type(self)({**self.at, **at}, {**self.said, **said})


def minute_events(
    instance: dg.DagsterInstance, keys: Keys, pipeline: Pipeline, facts: "HealthFacts", shown: Shown
) -> tuple[list[Event], Shown]:
    """Return the events of one look, and what is shown after them. Raises: CatalogError."""
    from wal_pipeline.wiring.health import health_limits

    limits = health_limits(pipeline)
    looks: list[Look] = [
        spool_materialization(keys, facts, limits),
        window_materialization(keys, facts),
        alerts_materialization(keys, pipeline.catalog.alerts.active(), facts.at),
        *tail_observations(keys, facts),
    ]
    due = [event for event in looks if shown.is_due(event, facts.at)]
    return [*due, *_verdicts(instance, keys, facts, limits)], shown.after(due, facts.at)


def _verdicts(
    instance: dg.DagsterInstance, keys: Keys, facts: "HealthFacts", limits: "HealthLimits"
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield the checks of these assets and of the drill whose verdict changed, or which the UI would call out of date.

    The UI does so after each materialization of another run. Events without a run count as one run.
    """
    from wal_pipeline.commands.health.asset_checks import drill_passed, spool_under_limit, tail_on_time

    found = [evaluation(keys.spool, "under_limit", spool_under_limit(facts, limits))]
    for store in facts.stores:
        found.append(
            evaluation(keys.recovery_drill, DRILL_CHECK.format(store=store.store), drill_passed(facts, limits, store))
        )
        found += [
            evaluation(keys.recovery_window, name, verdict) for name, verdict in window_verdicts(facts, limits, store)
        ]
    if facts.shipping.goal is not None:
        found += [evaluation(keys.wal_tail(one.store), TAIL_CHECK, tail_on_time(facts, one)) for one in facts.stores]
    yield from (one for one in found if _is_due(instance, one, facts.at))


def _is_due(instance: dg.DagsterInstance, new: dg.AssetCheckEvaluation, now: datetime) -> bool:
    record = last_evaluation(instance, dg.AssetCheckKey(new.asset_key, new.check_name))
    last = None if record is None else record.evaluation
    if record is None or last is None or record.run_id:
        return True
    newest = instance.get_latest_materialization_event(new.asset_key)
    is_behind = newest is not None and bool(newest.run_id) and newest.timestamp > record.create_timestamp
    is_old = now.timestamp() - record.create_timestamp >= EVALUATED_EVERY.total_seconds()
    return is_behind or is_old or (last.passed, last.severity) != (new.passed, new.severity)


def _digest(event: Look) -> str:
    said = {name: value.value for name, value in event.metadata.items() if isinstance(value, _SAID)}
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]
