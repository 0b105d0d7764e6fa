"""Computes the report's figures from the catalog's frames: lag, storage, compression and failures over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from wal_pipeline.commands.report.charts import Series
from wal_pipeline.commands.status.window_line import Axis

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class CompressionRow:
    """The compression of the period's files by one codec. Sizes in bytes, ``speed`` in bytes a second of one thread."""

    codec: str
    files: int
    size_bytes: int
    stored_bytes: int
    speed: float | None

    @property
    def ratio(self) -> float:
        """The bytes of WAL for each stored byte."""
        return self.size_bytes / self.stored_bytes if self.stored_bytes else 0.0


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One store's attempts in the period."""

    store: str
    attempted: int
    failed: int

    @property
    def success_rate(self) -> float | None:
        """The share of attempts that succeeded, 0 to 1; None where there was none."""
        return 1 - self.failed / self.attempted if self.attempted else None


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures that come from the catalog's frames. Lag in seconds, storage and WAL in bytes."""

    lag: tuple[Series, ...]
    storage: tuple[Series, ...]
    wal_per_day: tuple[Series, ...]
    failures_over_time: tuple[Series, ...]
    compression: tuple[CompressionRow, ...]
    failures: tuple[FailureRow, ...]


def figures(copies: "pd.DataFrame", events: "pd.DataFrame", stores: Sequence[str], axis: Axis) -> Figures:
    """Return the figures of a period from the frames of copies and of archive events."""
    verified = copies[(copies["status"] == "verified") & copies["verified_at"].notna()]
    inside = verified[verified["verified_at"] >= axis.begin_at]
    tried = events[events["hour_at"] >= axis.begin_at]
    step = _step(axis)
    return Figures(
        lag=tuple(Series(store, _lag(inside[inside["store"] == store], step)) for store in stores),
        storage=tuple(Series(store, _storage(verified[verified["store"] == store], axis, step)) for store in stores),
        wal_per_day=(Series("WAL a day", _wal_per_day(copies, axis)),),
        failures_over_time=tuple(Series(s, _failed(tried[tried["store"] == s], axis, step)) for s in stores),
        compression=_compression(inside),
        failures=tuple(_failures(tried[tried["store"] == store], store) for store in stores),
    )


def rules(series: Sequence[Series], *, least: float = 1.0) -> list[float]:
    """Return round values for the rules of an axis, four or five steps from 0 to above the greatest value."""
    greatest = max((value for one in series for _, value in one.points), default=0.0)
    greatest = max(greatest, least)
    power = 10.0 ** math.floor(math.log10(greatest / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * 5 >= greatest)
    return [step * index for index in range(math.ceil(greatest / step) + 1)]


def _step(axis: Axis) -> timedelta:
    """Return the span of one point, so that a line has about a hundred points whatever the period."""
    span = axis.end_at - axis.begin_at
    steps = (timedelta(minutes=15), timedelta(hours=1), timedelta(hours=3), timedelta(hours=6), timedelta(days=1))
    return next((step for step in steps if span / step <= 150), steps[-1])


def _points(values: "pd.Series[Any]") -> list[tuple[datetime, float]]:
    return [(at.to_pydatetime(), float(value)) for at, value in values.dropna().items()]  # type: ignore[attr-defined]


def _lag(frame: "pd.DataFrame", step: timedelta) -> list[tuple[datetime, float]]:
    if frame.empty:
        return []
    return _points(frame.set_index("verified_at")["lag_seconds"].resample(step).quantile(0.95))


def _storage(frame: "pd.DataFrame", axis: Axis, step: timedelta) -> list[tuple[datetime, float]]:
    """Return the bytes that are still stored, by the day they came; expired copies are not in the records any more."""
    if frame.empty:
        return []
    sums = frame.set_index("verified_at")["stored_size_bytes"].sort_index().resample(step).sum().cumsum()
    before = sums[sums.index < axis.begin_at]
    inside = _points(sums[sums.index >= axis.begin_at])
    start = [(axis.begin_at, float(before.iloc[-1]) if len(before) else 0.0)]
    return [*start, *inside, (axis.end_at, inside[-1][1] if inside else start[0][1])]


def _wal_per_day(copies: "pd.DataFrame", axis: Axis) -> list[tuple[datetime, float]]:
    files = copies.drop_duplicates(["system_identifier", "name"])
    files = files[files["spooled_at"] >= axis.begin_at]
    if files.empty:
        return []
    return _points(files.set_index("spooled_at")["size_bytes"].resample(timedelta(days=1)).sum())


def _failed(events: "pd.DataFrame", axis: Axis, step: timedelta) -> list[tuple[datetime, float]]:
    if events.empty:
        return [(axis.begin_at, 0.0), (axis.end_at, 0.0)]
    return _points(events.set_index("hour_at")["failed"].resample(max(step, timedelta(hours=1))).sum())


def _compression(frame: "pd.DataFrame") -> tuple[CompressionRow, ...]:
    files = frame.drop_duplicates(["system_identifier", "name"])
    found = []
    for codec, group in files.groupby("codec"):
        timed = group[group["compress_seconds"] > 0]
        seconds = float(timed["compress_seconds"].sum())
        found.append(
            CompressionRow(
                codec=str(codec),
                files=len(group),
                size_bytes=int(group["size_bytes"].sum()),
                stored_bytes=int(group["stored_size_bytes"].sum()),
                speed=float(timed["size_bytes"].sum()) / seconds if seconds else None,
            )
        )
    return tuple(found)


def _failures(events: "pd.DataFrame", store: str) -> FailureRow:
    return FailureRow(store, int(events["attempted"].sum()), int(events["failed"].sum()))
