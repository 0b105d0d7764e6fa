"""Pause archiving and resume it: the spool keeps everything meanwhile, and the pause ends by itself."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.errors import CatalogError, PausedError, SettingsError

DEFAULT_PAUSE: Final = timedelta(hours=1)
LONGEST_PAUSE: Final = timedelta(days=7)
_KEY: Final = "pause"
_ASK_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pause:
    """Archiving stands still from ``since_at`` to ``until_at``."""

    since_at: datetime
    until_at: datetime
    reason: str
    by: str

    def describe(self) -> str:
        """Say it in one line."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"archiving is paused until {self.until_at:%Y-%m-%d %H:%M:%S} UTC by {self.by}{reason}"


def pause(catalog: Catalog, now: datetime, *, length: timedelta, reason: str, by: str) -> Pause:
    """Pause archiving: no new file is taken, those on their way are finished. Replaces an earlier pause.

    Raises: SettingsError for a length that is not above zero or above ``LONGEST_PAUSE``: WAL fills the disk meanwhile.
    """
    if not timedelta(0) < length <= LONGEST_PAUSE:
        raise SettingsError(
            f"archiving cannot be paused for {length}, expected more than zero and at most {LONGEST_PAUSE.days} days",
            hint="WAL stays in the spool during a pause: mind the disk. Pause again when the time is up.",
        )
    made = Pause(now, now + length, reason, by)
    value = {"since_at": made.since_at.isoformat(), "until_at": made.until_at.isoformat(), "reason": reason, "by": by}
    catalog.values.put(_KEY, value)
    catalog.alerts.observe(AlertKind.PAUSED, Observation("archiving", made.describe()), now)
    return made


def resume(catalog: Catalog, now: datetime) -> Pause | None:
    """End the pause; return what was ended, None where there was none."""
    ended = current_pause(catalog, now)
    catalog.values.remove(_KEY)
    catalog.alerts.resolve(AlertKind.PAUSED, "archiving", now)
    return ended


def current_pause(catalog: Catalog, now: datetime) -> Pause | None:
    """Return the pause that holds at ``now``.

    A clock that was set back a little does not end it, and one that was set back far makes it at most twice as long.
    """
    value = catalog.values.get(_KEY)
    if value is None:
        return None
    since_at, until_at = (datetime.fromisoformat(value[name]) for name in ("since_at", "until_at"))
    found = Pause(since_at, until_at, value["reason"], value["by"])
    return found if since_at - (until_at - since_at) <= now < until_at else None


def refuse_if_paused(catalog: Catalog, now: datetime) -> None:
    """Raise PausedError where archiving is paused."""
    found = current_pause(catalog, now)
    if found is not None:
        raise PausedError(found.describe(), hint="'wal-pipeline resume' ends the pause now.")


class PauseWatch:
    """Tells a long run whether to stop taking files, asking the catalog at most once a second.

    A run waits for files for hours. A catalog that does not answer meanwhile must not fail it: the last answer holds
    until it does, and a run that has something to record finds out by itself.
    """

    def __init__(self, catalog: Catalog, clock: Callable[[], datetime]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._asked = float("-inf")
        self._paused = False

    def __call__(self) -> bool:
        """Whether archiving is paused now. Raises: CatalogError where it never answered."""
        if time.monotonic() - self._asked < _ASK_SECONDS:
            return self._paused
        is_first = self._asked == float("-inf")
        self._asked = time.monotonic()
        try:
            self._paused = current_pause(self._catalog, self._clock()) is not None
        except CatalogError as error:
            if is_first:
                raise
            _log.warning("whether archiving is paused is not known: %s", error.message)
        return self._paused
