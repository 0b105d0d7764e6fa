"""Carries out ``--once``: archives segments through the sensor, proves every copy, and reports numbers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Any, Final

from demo.copies import verified_copies
from demo.folder import DemoError
from demo.host_loss import HostLossReport, lose_host
from demo.load import write_load
from demo.recorded import Materialization, archived_by_sensor
from demo.rescue import RescueReport, bring_back
from demo.restore import RestoreReport, have_an_accident, undo
from demo.scene import Scene, Tell
from wal_pipeline.wal.names import FileKind, parse_file_name

SEGMENTS: Final = 20
_ARCHIVE_SECONDS: Final = 600
_DRAIN_SECONDS: Final = 180
_LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """The proof in numbers. ``segments``: those that the sensor's runs stored on every store; the lags are theirs."""

    segments: int
    copies_verified: dict[str, int]
    spool_left: int
    lag_seconds_p50: float
    lag_seconds_p99: float
    ui_url: str
    rescue: RescueReport
    restore: RestoreReport
    host_loss: HostLossReport

    @property
    def holds(self) -> bool:
        """Whether every promise holds."""
        complete = all(count == self.segments for count in self.copies_verified.values())
        archived = self.segments >= SEGMENTS and complete and self.spool_left == 0
        return archived and self.rescue.holds and self.restore.table_back and self.host_loss.holds

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values on one level."""
        values = asdict(self)
        parts = [values.pop(name) for name in ("rescue", "restore", "host_loss")]
        return {**values, **parts[0], **parts[1], **parts[2]}


def run_once(scene: Scene, tell: Tell) -> Report:
    """Write until enough segments are archived, bring a dropped table back, prove every copy, and survive the rest.

    Raises: DemoError, ServerError.
    """
    stores = ("r2", "b2")
    tell(f"writing with pgbench until runs of the sensor have archived {SEGMENTS} segments")
    with write_load(scene.cluster) as load:
        _wait(
            lambda: _count(scene, stores, tell) >= SEGMENTS,
            _ARCHIVE_SECONDS,
            lambda: f"fewer than {SEGMENTS} segments are archived",
        )
        accident = have_an_accident(scene, tell)
        dropped_in = scene.cluster.switch_wal()
        _wait(
            lambda: dropped_in in archived_by_sensor(scene.dagster, stores),
            _DRAIN_SECONDS,
            lambda: f"segment '{dropped_in}' is not on both stores",
        )
        rescue = bring_back(scene, accident, load, tell)
    last = scene.cluster.switch_wal()
    tell(f"the load has ended with segment {last}; waiting for the spool to drain")
    _wait(
        lambda: last in archived_names(scene) and not spool_files(scene),
        _DRAIN_SECONDS,
        lambda: f"{len(spool_files(scene))} files remain in the spool",
    )
    archived = segments_only(archived_by_sensor(scene.dagster, stores))
    tell("downloading, opening and hashing every copy")
    verified_copies(scene, archived_names(scene) - archived.keys())  # the command 'setup' stored these
    lags = sorted(_lag(items) for items in archived.values())
    verified = verified_copies(scene, archived.keys())
    return Report(
        segments=len(archived),
        copies_verified=verified,
        spool_left=len(spool_files(scene)),
        lag_seconds_p50=round(percentile(lags, 50), 3),
        lag_seconds_p99=round(percentile(lags, 99), 3),
        ui_url=scene.dagster.url,
        rescue=rescue,
        restore=undo(scene, accident, tell),
        host_loss=lose_host(scene, tell),
    )


def _count(scene: Scene, stores: Sequence[str], tell: Tell) -> int:
    found = len(segments_only(archived_by_sensor(scene.dagster, stores)))
    tell(f"  {found} segments on both stores, {len(spool_files(scene))} in the spool")
    return found


def segments_only(found: dict[str, list[Materialization]]) -> dict[str, list[Materialization]]:
    """Leave out history and backup history files."""
    return {name: items for name, items in found.items() if _is_segment(name)}


def archived_names(scene: Scene) -> set[str]:
    """Return the segments that PostgreSQL marks as archived."""
    return {name for name in scene.cluster.archived() if _is_segment(name)}


def spool_files(scene: Scene) -> list[str]:
    """Return the names of PostgreSQL's files in the spool."""
    return [path.name for path in (scene.cluster.folder / "spool").iterdir() if parse_file_name(path.name)]


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile of sorted values, interpolated between the two nearest."""
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]


def _lag(items: list[Materialization]) -> float:
    """Return the seconds until the last store had a file."""
    lags = [item.lag_seconds for item in items if item.lag_seconds is not None]
    if len(lags) != len(items):
        raise DemoError(f"a materialization of '{items[0].file}' has no lag")
    return max(lags)


def _is_segment(name: str) -> bool:
    parsed = parse_file_name(name)
    return parsed is not None and parsed.kind is FileKind.SEGMENT


def _wait(is_done: Callable[[], bool], timeout_seconds: float, state: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not is_done():
        if time.monotonic() > deadline:
            raise DemoError(f"not done after {timeout_seconds:g} s: {state()}")
        time.sleep(_LOOK_SECONDS)
