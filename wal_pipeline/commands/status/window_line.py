"""Draws the recovery windows on one line of text, with base backups and gaps."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from wal_pipeline.commands.health.windows import CurrentWindows

_LEAST_SPAN: Final = timedelta(minutes=1)


class Cell(StrEnum):
    """One place of the line; later members are drawn over earlier ones."""

    NOTHING = "·"
    WINDOW = "━"
    GAP = "✖"
    BACKUP = "◆"


@dataclass(frozen=True, slots=True)
class Axis:
    """The span of time that a picture covers."""

    begin_at: datetime
    end_at: datetime

    def share(self, at: datetime) -> float:
        """Return the place of a moment, 0 to 1; a moment outside lies at the edge."""
        position = (at - self.begin_at) / (self.end_at - self.begin_at)
        return min(1.0, max(0.0, position))


def axis_of(windows: CurrentWindows, now: datetime) -> Axis:
    """Return the span from the first moment that can be restored to now."""
    moments = [window.earliest_at for some in windows.windows.values() for window in some]
    moments += [backup.finished_at for backup in windows.backups]
    begin_at = min(moments, default=now - timedelta(days=1))
    return Axis(min(begin_at, now - _LEAST_SPAN), now)


def draw(windows: CurrentWindows, store: str | None, axis: Axis, width: int) -> list[Cell]:
    """Return one store's line (None: all stores together)."""
    cells = [Cell.NOTHING] * width
    for window in windows.windows.get(store, ()):
        end_at = window.latest_commit_at_least or window.earliest_at
        _fill(cells, Cell.WINDOW, axis.share(window.earliest_at), axis.share(end_at))
    for gap in windows.open_gaps(store):
        moments = [at for at in (gap.last_commit_before_at, gap.first_commit_after_at) if at is not None]
        if moments:
            _fill(cells, Cell.GAP, axis.share(moments[0]), axis.share(moments[-1]))
    for at in backup_moments(windows, store):
        _fill(cells, Cell.BACKUP, axis.share(at), axis.share(at))
    return cells


def backup_moments(windows: CurrentWindows, store: str | None) -> Iterable[datetime]:
    """Return the moments at which the base backups on a store (None: on any) were finished."""
    return [one.finished_at for one in windows.backups if store is None or store in windows.holders[one.backup_id]]


def _fill(cells: list[Cell], cell: Cell, begin: float, end: float) -> None:
    first, last = (min(len(cells) - 1, int(share * len(cells))) for share in (begin, end))
    cells[first : last + 1] = [cell] * (last + 1 - first)
