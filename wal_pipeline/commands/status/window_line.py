"""Draws the recovery windows on one line of text, with base backups and gaps."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from wal_pipeline.archive.recovery.gaps import GapState, LedgerEntry
from wal_pipeline.archive.recovery.window import RecoveryWindow
from wal_pipeline.commands.health.reach import Reaches
from wal_pipeline.commands.health.windows import CurrentWindows

_LEAST_SPAN: Final = timedelta(minutes=1)


class Cell(StrEnum):
    """One place of the line; later members are drawn over earlier ones."""

    NOTHING = "·"
    WINDOW = "━"
    PAST_GAP = "░"
    BACKUP = "◆"
    GAP = "✖"


_PAST: Final = frozenset({GapState.CLOSED, GapState.ACKNOWLEDGED})
_OPEN: Final = frozenset({GapState.OPEN})


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


def draw(
    windows: CurrentWindows, store: str | None, axis: Axis, width: int, reaches: Reaches | None = None
) -> list[Cell]:
    """Return one store's line (None: any store). A window is drawn up to where it reaches by ``reaches``."""
    cells = [Cell.NOTHING] * width
    for window in windows.windows.get(store, ()):
        end_at = window_end(windows, store, window, reaches)
        _fill(cells, Cell.WINDOW, axis.share(window.earliest_at), axis.share(end_at))
    spans = [(Cell.PAST_GAP, *gap_span(windows, one)) for one in windows.gaps.get(store, ()) if one.state in _PAST]
    spans += [(Cell.BACKUP, at, at) for at in backup_moments(windows, store)]
    spans += [(Cell.GAP, *gap_span(windows, one)) for one in windows.gaps.get(store, ()) if one.state in _OPEN]
    for cell, begin_at, end_at in spans:
        _fill(cells, cell, axis.share(begin_at), axis.share(end_at))
    for cell, begin_at, end_at in spans:
        if cell is Cell.PAST_GAP:
            keep_visible(cells, axis.share(begin_at), axis.share(end_at))
    return cells


def window_end(
    windows: CurrentWindows, store: str | None, window: RecoveryWindow, reaches: Reaches | None = None
) -> datetime:
    """Return the moment to which a window reaches: by ``reaches`` for the main one, else what is certain."""
    reach = (reaches or {}).get(store)
    return reach.at if reach is not None and window == windows.main(store) else window.reaches_at_least


def gap_span(windows: CurrentWindows, entry: LedgerEntry) -> tuple[datetime, datetime]:
    """Return the moments around a gap, the nearest that are known.

    Where no commit before it is known, it begins with the base backup before it; where none after it is known, it ends
    with the base backup that closed it. The same moment twice is one place.
    """
    gap = entry.gap
    closed = [one.finished_at for one in windows.backups if one.backup_id == entry.closed_by]
    begun = [one.finished_at for one in windows.backups if one.stop_lsn <= gap.start_lsn]
    ends = [gap.first_commit_after_at] if gap.first_commit_after_at is not None else closed
    begins = [gap.last_commit_before_at] if gap.last_commit_before_at is not None else begun or ends
    known = begins or [datetime.max.replace(tzinfo=UTC)]
    return max(known), max([*known, *ends])


def backup_moments(windows: CurrentWindows, store: str | None) -> Iterable[datetime]:
    """Return the moments at which the base backups on a store (None: on any) were finished."""
    return [one.finished_at for one in windows.backups if store is None or store in windows.holders[one.backup_id]]


def _fill(cells: list[Cell], cell: Cell, begin: float, end: float) -> None:
    first, last = (min(len(cells) - 1, int(share * len(cells))) for share in (begin, end))
    cells[first : last + 1] = [cell] * (last + 1 - first)


def keep_visible(cells: list[Cell], begin: float, end: float) -> None:
    """Show a past gap that base backups close together would hide: it takes the place of the one that closed it."""
    first, last = (min(len(cells) - 1, int(share * len(cells))) for share in (begin, end))
    if all(cell is Cell.BACKUP for cell in cells[first : last + 1]):
        cells[first] = Cell.PAST_GAP
