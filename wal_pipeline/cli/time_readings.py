"""Offers the readings of a time that lacks its day or its zone, each as a line to type."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta

from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline.host.own_command import with_other_value
from wal_pipeline.text import length

_Zone = Callable[[datetime], datetime]  # what a moment without a zone is there


def refuse_ambiguous(option: str, text: str, now: datetime, *, what: str = "the recovery target") -> None:
    """Refuse a time that several moments may be meant by. Raises: RecoveryTargetError, whose hint has the readings."""
    found = list(dict.fromkeys(_readings(text.strip(), now)))
    if not found:
        return
    lacks = "no day" if _as_time(text.strip()) is not None else "no time zone"
    lines = [f"  {with_other_value(option, text, _typed(at))}   # {_said(at, now)}" for at in found]
    hint = "\n".join(["Which moment is meant? Type one of these:", *lines])
    raise RecoveryTargetError(f"{what} '{text}' has {lacks}", hint=hint)


def _readings(text: str, now: datetime) -> Iterator[datetime]:
    """Yield the moments that may be meant, in UTC and here; of a time of day the last one, and where that is the same
    in both the one before it too.
    """
    at, moment = _as_time(text), _as_moment(text)
    if at is None:
        if moment is not None and moment.tzinfo is None:
            yield from (_in_utc(moment), _here(moment))
        return
    zones: tuple[_Zone, ...] = (_in_utc, _here)
    if at.tzinfo is not None:
        zones = (lambda naive: naive.replace(tzinfo=at.tzinfo),)
    last = dict.fromkeys(_last(at.replace(tzinfo=None), zone, now) for zone in zones)
    yield from last
    if len(last) == 1:
        yield from (found - timedelta(days=1) for found in last)


def _last(at: time, zone: _Zone, now: datetime) -> datetime:
    """Return the last moment before now at which a clock of the zone showed this time."""
    days = (now.replace(tzinfo=None) + timedelta(days=ahead) for ahead in (1, 0, -1, -2))
    return next(found for day in days if (found := zone(datetime.combine(day.date(), at))) <= now)


def _in_utc(naive: datetime) -> datetime:
    return naive.replace(tzinfo=UTC)


def _here(naive: datetime) -> datetime:
    return naive.astimezone()


def _typed(at: datetime) -> str:
    """Return a moment as PostgreSQL writes it: an offset of whole hours without its minutes."""
    return at.isoformat(" ").removesuffix(":00")


def _said(at: datetime, now: datetime) -> str:
    zone = "UTC" if at.utcoffset() == timedelta(0) else f"this host's time zone, {at:%H:%M} here"
    ago = f"{length(now - at)} ago" if at <= now else f"in {length(at - now)}"
    return f"{zone}, {ago}"


def _as_time(text: str) -> time | None:
    try:
        return None if len(text) < 4 or text.isdecimal() else time.fromisoformat(text)
    except ValueError:
        return None


def _as_moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
