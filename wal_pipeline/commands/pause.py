"""Pauses archiving and resumes it: the spool keeps everything meanwhile, and the pause ends by itself."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.errors import CatalogError, PausedError, SettingsError
from wal_pipeline.text import moment_json, moment_text

DEFAULT_PAUSE: Final = timedelta(hours=1)
LONGEST_PAUSE: Final = timedelta(days=7)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_KEY: Final = "pause"
_ASK_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of archiving from ``since_at`` to ``until_at``."""

    since_at: datetime
    until_at: datetime
    reason: str
    by: str

    def describe(self) -> str:
        """Return the pause in one line of text."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"archiving is paused until {moment_text(self.until_at)} UTC by {self.by}{reason}"

    def as_json(self) -> dict[str, Any]:
        """Return the pause as the catalog keeps it."""
        since_at, until_at = moment_json(self.since_at), moment_json(self.until_at)
        return {"since_at": since_at, "until_at": until_at, "reason": self.reason, "by": self.by}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read a pause from the catalog's value."""
        since_at, until_at = (datetime.fromisoformat(values[name]) for name in ("since_at", "until_at"))
        return cls(since_at, until_at, values["reason"], values["by"])

    def holds(self, now: datetime) -> bool:
        """Return whether archiving is paused at ``now``.

        A clock that was set back a little does not end the pause; one that was set back far at most doubles it.
        """
        return self.since_at - (self.until_at - self.since_at) <= now < self.until_at


def length_from_text(text: str) -> timedelta:
    """Return the length of time that a text names: ``90s``, ``30m``, ``2h`` or ``1d``. Raises: SettingsError."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if match is None:
        raise SettingsError(f"'{text}' is not a length of time", hint="Write 30m, 2h or 1d.")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def pause(catalog: Catalog, now: datetime, *, length: timedelta, reason: str, by: str) -> Pause:
    """Pause archiving: runs take no new file and finish those on their way. Replaces an earlier pause.

    Raises: SettingsError for a length that is not above zero or above ``LONGEST_PAUSE``: WAL fills the disk meanwhile.
    """
    if not timedelta(0) < length <= LONGEST_PAUSE:
        raise SettingsError(
            f"archiving cannot be paused for {length}, expected more than zero and at most {LONGEST_PAUSE.days} days",
            hint="WAL stays in the spool during a pause: mind the disk. Pause again when the time is up.",
        )
    made = Pause(now, now + length, reason, by)
    catalog.values.put(_KEY, made.as_json())
    catalog.alerts.observe(AlertKind.PAUSED, Observation("archiving", made.describe()), now)
    return made


def resume(catalog: Catalog, now: datetime) -> Pause | None:
    """End the pause and return it; return None where there was none."""
    ended = current_pause(catalog, now)
    catalog.values.remove(_KEY)
    catalog.alerts.resolve(AlertKind.PAUSED, "archiving", now)
    return ended


def current_pause(catalog: Catalog, now: datetime) -> Pause | None:
    """Return the pause that holds at ``now``; None where archiving is not paused. Raises: CatalogError."""
    value = catalog.values.get(_KEY)
    found = None if value is None else Pause.from_json(value)
    return found if found is not None and found.holds(now) else None


def refuse_if_paused(catalog: Catalog, now: datetime) -> None:
    """Raise PausedError where archiving is paused."""
    found = current_pause(catalog, now)
    if found is not None:
        raise PausedError(
            found.describe(), hint="'wal-pipeline resume', or the job resume_archiving, ends the pause now."
        )


class PauseWatch:
    """Says to a long run whether to stop taking files. It asks the catalog at most once a second.

    A run waits for files for hours. A catalog that does not answer meanwhile must not fail it: the last answer holds
    until it does, and a run that has something to record finds out by itself.
    """

    def __init__(self, catalog: Catalog, clock: Callable[[], datetime]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._asked = float("-inf")
        self._paused = False

    def __call__(self) -> bool:
        """Return whether archiving is paused now. Raises: CatalogError where it never answered."""
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
