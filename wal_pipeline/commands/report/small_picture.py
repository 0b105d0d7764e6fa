"""Draws the recovery windows as an SVG picture of at most 700 bytes: Dagster's UI shows a longer one behind a click."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from xml.sax.saxutils import escape

from wal_pipeline.archive.recovery.gaps import GapState
from wal_pipeline.archive.recovery.window import RecoveryWindow
from wal_pipeline.commands.health.answer import store_name
from wal_pipeline.commands.health.facts import HealthFacts
from wal_pipeline.commands.status.window_line import Axis, axis_of, backup_moments

MOST_BYTES: Final = 700
_LEFT, _WIDTH, _ROW = 62, 450, 16
_GREEN, _RED, _PAST, _BLUE = "#16a34a", "#dc2626", "#fca5a5", "#1e3a8a"


def small_windows_svg(facts: HealthFacts) -> str:
    """Draw a bar for any store and one for each store: green can be restored, red is a gap, a blue line a base backup.

    Where that takes too many bytes, base backups are left out, the oldest first.
    """
    windows, axis = facts.windows, axis_of(facts.windows, facts.at)
    rows = (None, *windows.stores)
    backups = sorted({(at, row) for row, store in enumerate(rows) for at in backup_moments(windows, store)})
    while True:
        drawn = _draw(facts, axis, backups)
        if len(drawn) <= MOST_BYTES or not backups:
            return drawn
        backups = backups[1 + len(backups) // 4 :]


def _draw(facts: HealthFacts, axis: Axis, backups: list[tuple[datetime, int]]) -> str:
    rows = (None, *facts.windows.stores)
    low = _ROW * len(rows) + 12
    lines = "".join(f"M{_x(axis, at)} {row * _ROW + 2}v13" for at, row in backups)
    names = "".join(f"<text y='{row * _ROW + 13}'>{escape(store_name(one))}</text>" for row, one in enumerate(rows))
    return "".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' width='520' height='{low + 4}' font-size='11'>",
            f"<rect width='520' height='{low + 4}' fill='#fff'/>",
            names,
            *_paths(facts, axis),
            f"<path stroke='{_BLUE}' d='{lines}'/>" if lines else "",
            f"<text x='{_LEFT}' y='{low}'>{axis.begin_at:%m-%d %H:%M}</text>",
            f"<text x='{_LEFT + _WIDTH}' y='{low}' text-anchor='end'>{axis.end_at:%m-%d %H:%M}</text></svg>",
        ]
    )


def _paths(facts: HealthFacts, axis: Axis) -> Iterator[str]:
    windows = facts.windows
    rows = (None, *windows.stores)
    bars = [
        _bar(axis, row, one.earliest_at, _end(facts, store, one))
        for row, store in enumerate(rows)
        for one in windows.windows.get(store, ())
    ]
    yield f"<path fill='{_GREEN}' d='{''.join(bars)}'/>" if bars else ""
    for colour, states in ((_PAST, (GapState.CLOSED, GapState.ACKNOWLEDGED)), (_RED, (GapState.OPEN,))):
        found = [
            _bar(axis, row, moments[0], moments[-1])
            for row, store in enumerate(rows)
            for entry in windows.gaps.get(store, ())
            if entry.state in states
            and (moments := [at for at in (entry.gap.last_commit_before_at, entry.gap.first_commit_after_at) if at])
        ]
        yield f"<path fill='{colour}' d='{''.join(found[:6])}'/>" if found else ""


def _end(facts: HealthFacts, store: str | None, window: RecoveryWindow) -> datetime:
    reach = facts.reaches.get(store)
    return window.reaches_at_least if reach is None or window != facts.windows.main(store) else reach.at


def _bar(axis: Axis, row: int, begin: datetime, end: datetime) -> str:
    left = _x(axis, begin)
    wide = max(2, _x(axis, end) - left)
    return f"M{left} {row * _ROW + 4}h{wide}v9h-{wide}z"


def _x(axis: Axis, at: datetime) -> int:
    return _LEFT + round(axis.share(at) * _WIDTH)
