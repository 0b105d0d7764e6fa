"""Renders the report: one HTML page from the catalog's records, which needs no network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wal_pipeline.archive.cost import Prices, dollars
from wal_pipeline.archive.recovery.window import RecoveryWindow
from wal_pipeline.archive.restore_time.words import forecast_sentence
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.cost.cost import current_cost
from wal_pipeline.commands.health.answer import end_text, gaps_text, recovery_answer, rpo_text, store_name
from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.commands.health.shipping import behind_text, hour_text, shipping_sentence
from wal_pipeline.commands.report.charts import Series, lines_svg, windows_svg
from wal_pipeline.commands.report.figures import Figures, figures, rules
from wal_pipeline.commands.status.status import ArchiveStatus
from wal_pipeline.commands.status.window_line import Axis
from wal_pipeline.errors import SettingsError, cause_hint
from wal_pipeline.host.durable_file import write_whole
from wal_pipeline.host.own_command import typeable
from wal_pipeline.text import billed_size, length, moment_text, size

if TYPE_CHECKING:
    from jinja2 import Template

MOST_ALERTS: Final = 50
_TEMPLATE: Final = "page.html.j2"  # package data beside this file


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One row of the table of recovery windows. ``store`` may be 'any store'."""

    store: str
    window: RecoveryWindow | None
    end: str
    rpo: str
    gaps: str


def render_report(
    status: ArchiveStatus, catalog: Catalog, limits: HealthLimits, prices: dict[str, Prices], *, days: int
) -> str:
    """Return the page for the last ``days``. Raises: CatalogError."""
    axis = Axis(status.facts.at - timedelta(days=days), status.facts.at)
    stores = [store.store for store in status.facts.stores]
    made = figures(catalog.frames.copies(), catalog.frames.archive_events(), stores, axis)
    return _template().render(
        status=status,
        days=days,
        begin_at=axis.begin_at,
        answer=typeable(recovery_answer(status.facts)),
        figures=made,
        windows=_window_rows(status),
        shipping=shipping_sentence(status.facts.shipping),
        windows_svg=windows_svg(status.facts.windows, status.facts.at, status.facts.reaches),
        lag_goal_seconds=limits.lag_goal_seconds,
        cost=current_cost(catalog, prices, status.facts.at).cost,
        **_pictures(made, axis, limits),
        **_lists(status, catalog, axis.begin_at),
    )


def _template() -> "Template":
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - only a report needs it

    loader = PackageLoader(__package__, package_path=".")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        {
            "moment": moment_text,
            "size": size,
            "billed_size": billed_size,
            "length_of": length,
            "forecast_of": forecast_sentence,
            "dollars": dollars,
        }
        | {"behind": behind_text, "last_hour": hour_text}
    )
    return environment.get_template(_TEMPLATE)


def write_report(path: Path, page: str) -> None:
    """Write the page whole or not at all. Raises: SettingsError."""
    try:
        write_whole(page.encode(), path, durable=False, mode=0o644)
    except OSError as error:
        raise SettingsError(
            f"the report cannot be written to '{path}': {error.strerror}",
            hint=cause_hint(error) or "Name a file in a folder that this user can write, with --output.",
        ) from error


def _window_rows(status: ArchiveStatus) -> list[WindowRow]:
    facts = status.facts
    mains = [(store, facts.windows.main(store)) for store in (None, *facts.windows.stores)]
    return [
        WindowRow(
            store=store_name(store),
            window=window,
            end="-" if window is None else end_text(window),
            rpo=rpo_text(facts.reaches.get(store)),
            gaps=gaps_text(facts, store),
        )
        for store, window in mains
    ]


def _lists(status: ArchiveStatus, catalog: Catalog, since: datetime) -> dict[str, Any]:
    alerts = sorted(catalog.alerts.all(since), key=lambda alert: alert.opened_at, reverse=True)
    drills = [one for one in catalog.drills.all() if one.finished_at is not None and one.finished_at >= since]
    return {
        "alerts": alerts[:MOST_ALERTS],
        "more_alerts": max(0, len(alerts) - MOST_ALERTS),
        "backups": sorted(status.facts.windows.backups, key=lambda one: one.finished_at, reverse=True),
        "drills": drills[::-1],
    }


def _pictures(made: Figures, axis: Axis, limits: HealthLimits) -> dict[str, str]:
    goal = limits.lag_goal_seconds
    return {
        "lag_svg": _lines(made.lag, axis, _axis_seconds, goal=goal),
        "storage_svg": _lines(made.storage, axis, size, least=2.0**20, binary=True),
        "wal_svg": _lines(made.wal_per_day, axis, size, least=2.0**20, binary=True),
        "failures_svg": _lines(made.failures_over_time, axis, lambda value: f"{value:.0f}", least=4.0, height=160),
    }


def _lines(
    series: Sequence[Series],
    axis: Axis,
    shown: Callable[[float], str],
    *,
    goal: float | None = None,
    least: float = 1.0,
    height: int = 220,
    binary: bool = False,
) -> str:
    """Draw lines; ``binary``: with rules at round numbers of KiB, MiB or GiB."""
    unit = 1.0
    if binary:
        greatest = max((value for one in series for _, value in one.points), default=least)
        unit = next(float(2**power) for power in (40, 30, 20, 10, 0) if max(greatest, least) >= 2**power)
    scaled = [Series(one.name, [(at, value / unit) for at, value in one.points]) for one in series]
    values = rules(scaled, least=least / unit)
    label = {value: shown(value * unit) if value else "0" for value in values}
    return lines_svg(scaled, axis, label=label, height=height, goal=goal)


def _axis_seconds(value: float) -> str:
    """Return a round number of seconds as a rule of an axis says it."""
    return f"{value:g} s" if value < 120 else f"{value / 60:g} min"
