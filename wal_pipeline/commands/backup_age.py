"""Which base backup is the newest and how old: a time that a wrong clock put into the future counts for nothing.

Retention orders base backups in the same way: by where they lie in the WAL.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.commands.current_windows import CurrentWindows

CLOCK_TOLERANCE: Final = timedelta(hours=1)  # between the server's clock and this host's


def is_ahead(at: datetime, now: datetime) -> bool:
    """Whether a time lies in the future by more than two clocks may differ."""
    return at > now + CLOCK_TOLERANCE


def usable_backups(windows: CurrentWindows, store: str) -> list[BaseBackup]:
    """Return the base backups that can be restored from a store alone."""
    usable = {backup_id for window in windows.windows.get(store, ()) for backup_id in window.backup_ids}
    return [one for one in windows.backups if one.backup_id in usable]


def newest_finished_at(backups: Collection[BaseBackup], now: datetime) -> datetime | None:
    """Return when the newest base backup finished; None where there is none that finished before now."""
    return max((one.finished_at for one in backups if not is_ahead(one.finished_at, now)), default=None)


def newest_id(backup_ids: Collection[str], now: datetime) -> str | None:
    """Return the id of the base backup that begins last in the WAL; of two in one segment the later one by the clock.

    An id is a time and the name of a segment.
    """
    latest = f"{now + CLOCK_TOLERANCE:%Y%m%dT%H%M%SZ}"

    def order(backup_id: str) -> tuple[str, bool, str]:
        time, _, segment = backup_id.partition("-")
        return segment, time <= latest, time

    return max(backup_ids, key=order, default=None)
