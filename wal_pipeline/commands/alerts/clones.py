"""Says as the cause of an alert that a clone reached its end while somebody was connected to it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.archive.alerts import Alert, AlertKind, Observation
from wal_pipeline.text import counted, moment_utc

_LASTS: Final = timedelta(days=1)
_MOST_NAMED: Final = 5
_UNTIL: Final = "until_at"


def end_observation(name: str, connected: Sequence[str], now: datetime) -> Observation:
    """Return the cause of the alert about the clone ``name``. ``connected`` are its sessions, in a person's words.

    Nothing can be mended, so it lasts for a day.
    """
    more = len(connected) - _MOST_NAMED
    named = ", ".join(connected[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    count = counted(len(connected), "session")
    message = f"the clone reached its end at {moment_utc(now)} and was removed with {count} connected: {named}"
    return Observation(name, message, details={_UNTIL: (now + _LASTS).isoformat(), "connected": list(connected)})


def lasting_ends(alerts: Sequence[Alert], now: datetime) -> list[Observation]:
    """Return the causes that were told within a day."""
    return [
        Observation(alert.subject, alert.message, alert.severity, alert.details)
        for alert in alerts
        if alert.kind is AlertKind.CLONE_ENDED and now < datetime.fromisoformat(alert.details[_UNTIL])
    ]
