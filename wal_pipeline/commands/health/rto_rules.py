"""Finds the stores from which a restore would take longer than the objective. Pure."""

from collections.abc import Mapping
from typing import Final

from wal_pipeline.archive.alerts import Observation
from wal_pipeline.archive.restore_time.forecast import RestoreForecast
from wal_pipeline.archive.restore_time.words import forecast_text
from wal_pipeline.commands.health.facts import HealthFacts
from wal_pipeline.text import length

HELPS: Final = "base_backup_helps"


def restore_slow(facts: HealthFacts, objective_seconds: float | None) -> list[Observation]:
    """Return an observation for each store whose prediction passes the objective. What is not known passes none."""
    if objective_seconds is None:
        return []
    return [
        _observation(store, one, objective_seconds)
        for store, one in facts.restore_times.items()
        if one.seconds is not None and one.seconds > objective_seconds
    ]


def _observation(store: str, forecast: RestoreForecast, objective_seconds: float) -> Observation:
    helps = base_backup_helps(forecast, objective_seconds)
    without = length(forecast.without_replay_seconds)
    way = (
        f"a new base backup would bring it to {without}"
        if helps
        else f"without any WAL to replay it would be {without}: a new base backup is not enough"
    )
    takes = forecast_text(forecast)  # without ages: the message of an alert does not change each minute
    message = f"a restore from {store} would take {takes}, expected at most {length(objective_seconds)}; {way}"
    return Observation(store, message, details={HELPS: helps})


def base_backup_helps(forecast: RestoreForecast, objective_seconds: float) -> bool:
    """Say whether the replay alone makes a restore too slow: a new base backup leaves almost nothing to replay."""
    without = forecast.without_replay_seconds
    return without is not None and without <= objective_seconds


def wants_base_backup(details: Mapping[str, object]) -> bool:
    """Say whether an alert's details tell that a new base backup helps."""
    return details.get(HELPS) is True
