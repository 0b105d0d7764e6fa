"""Decides to which cluster a file belongs that does not name one: a timeline history or backup history file."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.wal.backup_history import BackupHistory
from wal_pipeline.wal.page_header import InvalidSegmentError, SegmentFault
from wal_pipeline.wal.timeline import TimelineHistory

_FIRST_CREDIBLE_AT: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SECONDS_SHIFT: Final = 32


def born_at(system_identifier: int) -> datetime | None:
    """Return when initdb made the cluster (xlog.c: BootStrapXLOG, ``tv_sec << 32``); None where that is no date."""
    at = datetime.fromtimestamp(system_identifier >> _SECONDS_SHIFT, UTC)
    return at if at >= _FIRST_CREDIBLE_AT else None


def owner_of_text(
    name: str,
    content: TimelineHistory | BackupHistory,
    spooled_at: datetime,
    accepted: Iterable[int],
    current: int,
    *,
    now: datetime,
) -> int:
    """Return the system identifier of the cluster that wrote the file: of those that were there then, the newest.

    After pg_upgrade the spool may still hold files of the old cluster. They are archived for the old one where it is
    accepted: as the new one's, a history file would name a timeline that the new one never had.

    Raises: InvalidSegmentError where the file is older than every cluster that is accepted.
    """
    written_at = spooled_at
    if isinstance(content, BackupHistory) and content.started_at is not None:
        written_at = min(written_at, content.started_at)
    births = {one: born_at(one) for one in {*accepted, current}}
    birth = births[current]
    if birth is None or birth > now or written_at >= birth:
        return current
    older = {at: one for one, at in births.items() if at is not None and at <= written_at}
    if older:
        return older[max(older)]
    raise InvalidSegmentError(
        SegmentFault.WRONG_CLUSTER,
        f"'{name}' is of {written_at:%Y-%m-%d %H:%M:%S} UTC and older than the cluster with system identifier "
        f"{current}, which was made at {birth:%Y-%m-%d %H:%M:%S} UTC: another cluster left it in the spool, as before "
        "pg_upgrade",
    )
