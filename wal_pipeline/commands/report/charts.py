"""Draws SVG pictures of the recovery windows and of figures over time, without a script and without a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from xml.sax.saxutils import escape

from wal_pipeline.archive.recovery.gaps import GapState
from wal_pipeline.commands.health.answer import gap_text, store_name
from wal_pipeline.commands.health.reach import Reaches
from wal_pipeline.commands.health.windows import CurrentWindows
from wal_pipeline.commands.status.window_line import Axis, axis_of, backup_moments, gap_span, window_end
from wal_pipeline.text import moment_text

COLOURS: Final = ("#2563eb", "#d97706", "#059669", "#9333ea")
_WINDOW, _GAP, _BACKUP = "#16a34a", "#dc2626", "#1e3a8a"
_GAP_WORDS: Final = {
    GapState.OPEN: "open gap",
    GapState.ACKNOWLEDGED: "accepted gap",
    GapState.ON_ITS_WAY: "gap on its way",
    GapState.CLOSED: "past gap",
}
_GRID, _TEXT, _TRACK = "#e2e8f0", "#475569", "#f1f5f9"
_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 76, 24, 14, 40, 46
_FONT: Final = "font-family='system-ui,sans-serif' font-size='12'"


def windows_svg(windows: CurrentWindows, now: datetime, reaches: Reaches | None = None, *, width: int = 900) -> str:
    """Draw the windows of any store and of each store, with base backups and gaps, up to where they reach."""
    axis = axis_of(windows, now)
    rows = (None, *windows.stores)
    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = [_open(width, height), *_time_axis(axis, width, _TOP, height - _BOTTOM)]
    for index, store in enumerate(rows):
        parts += _window_row(windows, reaches, store, axis, (width, _TOP + index * _ROW))
    parts += _legend(height - 8)
    return "".join([*parts, "</svg>"])


def _window_row(
    windows: CurrentWindows, reaches: Reaches | None, store: str | None, axis: Axis, place: tuple[int, int]
) -> list[str]:
    """Draw one row; ``place`` is the picture's width and the row's top."""
    middle = place[1] + _ROW // 2
    span = place[0] - _LEFT - _RIGHT

    def x(at: datetime) -> float:
        return _LEFT + axis.share(at) * span

    parts = [
        _text(_LEFT - 10, middle + 4, store_name(store), anchor="end", weight=600),
        f"<rect x='{_LEFT}' y='{middle - 8}' width='{span}' height='16' rx='3' fill='{_TRACK}'/>",
    ]
    for window in windows.windows.get(store, ()):
        end_at = window_end(windows, store, window, reaches)
        begin, end = x(window.earliest_at), x(end_at)
        said = f"timeline {window.timeline}: {moment_text(window.earliest_at)} to {moment_text(end_at)} UTC"
        shade = _WINDOW if window.left_at_lsn is None else "#86efac"
        parts.append(
            f"<rect x='{begin:.1f}' y='{middle - 8}' width='{max(2.0, end - begin):.1f}' height='16' rx='3' "
            f"fill='{shade}'><title>{escape(said)}</title></rect>"
        )
    for entry in windows.gaps.get(store, ()):
        if entry.state is not GapState.ON_ITS_WAY:
            begin, end = (x(at) for at in gap_span(windows, entry))
            said = f"{_GAP_WORDS[entry.state]}: {gap_text(entry.gap)}"
            parts.append(_gap_mark(begin - 1, middle, max(6.0, end - begin + 2), said, entry.state is GapState.OPEN))
    return parts + [_diamond(x(at), middle, f"base backup {at:%Y-%m-%d %H:%M} UTC") for at in _sorted(windows, store)]


def _sorted(windows: CurrentWindows, store: str | None) -> list[datetime]:
    return sorted(backup_moments(windows, store))


def _diamond(x: float, y: float, said: str) -> str:
    points = f"{x:.1f},{y - 7} {x + 6:.1f},{y} {x:.1f},{y + 7} {x - 6:.1f},{y}"
    return (
        f"<polygon points='{points}' fill='{_BACKUP}' stroke='#fff' stroke-width='1.5'>"
        f"<title>{escape(said)}</title></polygon>"
    )


def _gap_mark(x: float, y: float, width: float, said: str, is_open: bool) -> str:
    """Draw an open gap as a full block, and a past or accepted one as an empty frame."""
    look = f"fill='{_GAP}'" if is_open else f"fill='#fff' stroke='{_GAP}' stroke-width='1.5' stroke-dasharray='3 2'"
    return f"<rect x='{x:.1f}' y='{y - 11}' width='{width:.1f}' height='22' {look}><title>{escape(said)}</title></rect>"


def _legend(y: float) -> list[str]:
    """Show each mark in its own shape, so that colour is not needed."""
    marks = (
        ("can be restored", f"<rect x='0' y='{y - 9}' width='12' height='10' rx='2' fill='{_WINDOW}'/>"),
        ("base backup", _diamond(6, y - 4, "base backup")),
        ("open gap", f"<rect x='2' y='{y - 12}' width='8' height='15' fill='{_GAP}'/>"),
        (
            "past gap",
            f"<rect x='2' y='{y - 12}' width='8' height='15' fill='#fff' stroke='{_GAP}' stroke-width='1.5' "
            "stroke-dasharray='3 2'/>",
        ),
    )
    parts = []
    for index, (word, mark) in enumerate(marks):
        x = _LEFT + index * 130
        parts += [f"<g transform='translate({x} 0)'>{mark}</g>", _text(x + 18, y, word)]
    return parts


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: its points in the order of time."""

    name: str
    points: Sequence[tuple[datetime, float]]


def lines_svg(
    series: Sequence[Series],
    axis: Axis,
    *,
    label: Mapping[float, str],
    width: int = 900,
    height: int = 240,
    goal: float | None = None,
) -> str:
    """Draw lines over time.

    ``label`` has the values of the horizontal rules and their text; the greatest is the top. ``goal`` is a dashed red
    rule.
    """
    top = max(label) or 1.0
    bottom_y = height - _BOTTOM
    left = max(_LEFT, 18 + _text_width(max(label.values(), key=len, default="")))

    def x(at: datetime) -> float:
        return left + axis.share(at) * (width - left - _RIGHT)

    def y(value: float) -> float:
        return bottom_y - min(1.0, value / top) * (bottom_y - _TOP)

    parts = [_open(width, height)]
    for value, said in label.items():
        parts.append(_rule(left, width, y(value), _GRID))
        parts.append(_text(left - 10, y(value) + 4, said, anchor="end"))
    parts += _time_axis(axis, width, _TOP, bottom_y, left)
    if goal is not None and goal <= top:
        parts.append(_rule(left, width, y(goal), _GAP, dashes="5 4"))
    mark_x = left
    for index, one in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        if len(one.points) == 1:
            [(at, value)] = one.points
            parts.append(f"<circle cx='{x(at):.1f}' cy='{y(value):.1f}' r='{2 + _width(index):.1f}' fill='{colour}'/>")
        elif one.points:
            path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in one.points)
            parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{_width(index)}'/>")
        parts.append(f"<rect x='{mark_x}' y='{height - 17}' width='10' height='10' rx='2' fill='{colour}'/>")
        parts.append(_text(mark_x + 16, height - 8, one.name))
        mark_x += 34 + _text_width(one.name)
    return "".join([*parts, "</svg>"])


def _width(index: int) -> float:
    """Return a line's width: the first is the widest, so that lines that lie on each other are all seen."""
    return max(1.6, 4.5 - 2.4 * index)


def _open(width: int, height: int) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        f"{_FONT} role='img'><rect width='{width}' height='{height}' fill='#fff'/>"
    )


def _time_axis(axis: Axis, width: int, top: float, bottom: float, left: int = _LEFT) -> list[str]:
    parts = []
    for at in ticks(axis):
        x = left + axis.share(at) * (width - left - _RIGHT)
        parts.append(f"<line x1='{x:.1f}' y1='{top}' x2='{x:.1f}' y2='{bottom}' stroke='{_GRID}'/>")
        shown = f"{at:%b} {at.day}" if at.hour == at.minute == 0 else f"{at:%H:%M}"
        parts.append(_text(x, bottom + 15, shown, anchor="middle"))
    return parts


def ticks(axis: Axis, most: int = 9) -> list[datetime]:
    """Return about ``most`` round moments of an axis, or fewer."""
    span = axis.end_at - axis.begin_at
    steps = [timedelta(minutes=n) for n in (1, 5, 15, 30, 60, 180, 360, 720)]
    steps += [timedelta(days=n) for n in (1, 2, 5, 7, 14, 30, 90, 365)]
    step = next((one for one in steps if span / one <= most), steps[-1])
    midnight = axis.begin_at.replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight + step * ((axis.begin_at - midnight) // step + 1)
    count = max(0, int((axis.end_at - first) / step) + 1)
    return [first + step * index for index in range(count)]


def _text_width(said: str) -> int:
    """Return the pixels that a text of the pictures' font takes, rather too many than too few."""
    return 8 * len(said)


def _rule(left: int, width: int, y: float, colour: str, *, dashes: str = "") -> str:
    dashed = f" stroke-dasharray='{dashes}'" if dashes else ""
    return f"<line x1='{left}' y1='{y:.1f}' x2='{width - _RIGHT}' y2='{y:.1f}' stroke='{colour}'{dashed}/>"


def _text(x: float, y: float, said: str, *, anchor: str = "start", weight: int = 400) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' fill='{_TEXT}' text-anchor='{anchor}' font-weight='{weight}'>"
        f"{escape(said)}</text>"
    )
