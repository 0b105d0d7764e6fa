"""Reads the options of a search, from the command line or a run's configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.errors import RestoreError

ANY_STORE: Final = "any"
LATEST: Final = "latest"
DEFAULT_SPAN: Final = timedelta(hours=1)
_MAX_TIMELINE: Final = 2**32 - 1


class FindOptionError(RestoreError):
    """An option of a search has a value that it cannot have."""

    is_refusal = True


@dataclass(frozen=True, slots=True)
class FindOptions:
    """One search as a person writes it. ``wal-pipeline find --help`` explains each option.

    The values are plain: texts and numbers that nothing has looked at yet. Without ``to_time`` the search goes to the
    end of the archive, without ``from_time`` it begins an hour before its end.
    """

    from_time: str | None = None
    to_time: str | None = None
    database: str | None = None
    relation: str | None = None
    dropping: bool = False
    min_deletes: int = 0
    min_rows: int = 0
    biggest_first: bool = False
    limit: int | None = None
    timeline: str = LATEST
    store: str = ANY_STORE
    system_identifier: int | None = None

    def checked(self) -> "FindRequest":
        """Return the values with their meaning. Raises: FindOptionError."""
        for name, number in (("--min-deletes", self.min_deletes), ("--min-rows", self.min_rows)):
            if number < 0:
                raise FindOptionError(f"{name} is {number}, expected 0 or more", hint="Leave it out to list all.")
        if self.limit is not None and self.limit < 1:
            raise FindOptionError(f"--limit is {self.limit}, expected 1 or more", hint="Leave it out for the default.")
        begin_at, end_at = _time("--from", self.from_time), _time("--to", self.to_time)
        if begin_at is not None and end_at is not None and begin_at > end_at:
            raise FindOptionError(
                f"--from {begin_at.isoformat(' ')} is after --to {end_at.isoformat(' ')}",
                hint="Give the earlier moment as --from.",
            )
        return FindRequest(begin_at, end_at, self._timeline())

    def store_names(self, configured: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
        """Return the stores to read. Raises: FindOptionError for one that is not ``known``."""
        if self.store == ANY_STORE:
            return tuple(configured)
        if self.store not in known:
            raise FindOptionError(
                f"'{self.store}' is not a store, expected one of {', '.join((ANY_STORE, *known))}",
                hint="Leave --store out to read each segment from whichever store has it.",
            )
        return (self.store,)

    def _timeline(self) -> int | None:
        if self.timeline == LATEST:
            return None
        if self.timeline.isascii() and self.timeline.isdecimal() and 0 < int(self.timeline) <= _MAX_TIMELINE:
            return int(self.timeline)
        raise FindOptionError(
            f"'{self.timeline}' is not a timeline, expected latest or a number",
            hint="'wal-pipeline status' names the timelines of the archive.",
        )


@dataclass(frozen=True, slots=True)
class FindRequest:
    """When a search begins and ends, and on which timeline (None: the newest)."""

    begin_at: datetime | None
    end_at: datetime | None
    timeline: int | None


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    example = "such as '2026-11-22 17:45:00+00'"
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise FindOptionError(f"{option} '{text}' is not a time, expected {example}") from None
    if at.tzinfo is None:
        raise FindOptionError(f"{option} '{text}' has no time zone", hint=f"Write the time with its zone, {example}.")
    return at
