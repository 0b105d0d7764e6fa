"""Turns the status into Prometheus metrics.

Names and units follow Prometheus' conventions; the dashboard and the alert rules use these names.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wal_pipeline.archive.alerts import Severity
from wal_pipeline.archive.records import BackupMethod
from wal_pipeline.commands.health.facts import StoreFacts
from wal_pipeline.commands.health.no_records import has_records
from wal_pipeline.commands.health.shipping import ShippingHealth, ShippingState, TailHealth
from wal_pipeline.commands.health.windows import newest_finished_at, newest_id
from wal_pipeline.commands.status.status import ArchiveStatus, lag_seconds
from wal_pipeline.errors import SettingsError, cause_hint
from wal_pipeline.host.durable_file import write_whole

PREFIX: Final = "wal_pipeline_"
_LABELS: Final = ("cluster",)
_STORE_LABELS: Final = ("cluster", "store")

# Each metric's description, by its name without the prefix; a test compares the dashboard and the alert rules with it.
CLUSTER_METRICS: Final = {
    "up": "1 where the records could be read.",
    "last_look_timestamp_seconds": "When these numbers were taken.",
    "sensor_last_look_timestamp_seconds": "When Dagster's health sensor looked last.",
    "can_recover": "1 where some base backup can be restored.",
    "files": "Files of the WAL archive.",
    "wal_bytes": "Bytes of all archived WAL, as PostgreSQL wrote it.",
    "archive_success_ratio": "Share of the last day's copies that succeeded, 0 to 1.",
    "archive_lag_seconds": "Lag of the slowest store: 19 of 20 copies of the last hour, or what waits by now.",
    "failed_archives": "Copies that are failed, missing or damaged now.",
    "spool_files": "Files that wait in the spool.",
    "spool_bytes": "Bytes in the spool.",
    "spool_limit_bytes": "The limit of the spool.",
    "spool_oldest_seconds": "How long the oldest file has waited in the spool.",
    "quarantined_files": "Files that were not archived.",
    "paused": "1 while archiving is paused.",
    "latest_commit_timestamp_seconds": "The last commit that some store can bring back.",
    "last_commit_age_seconds": "Age of that commit. It grows while the server commits nothing.",
    "recovery_point_seconds": "RPO: age of the oldest commit that is on no store, 0 where there is none.",
    "recovery_point_is_bound": "1 where recovery_point_seconds is an upper bound: the server's WAL was not seen.",
    "unarchived_bytes": "WAL that the server has written since.",
    "shipping_up": "1 where the open segment is shipped, 0 where it should be and is not. Left out where it is off.",
    "shipping_promise_seconds": "A commit is on each store so long after its acknowledgement, in 99 of 100 cases.",
    "shipping_last_seen_timestamp_seconds": "When the shipper last said that it runs.",
    "shipping_slot_held_bytes": "WAL that the server keeps for the receiver's slot.",
    "restore_objective_seconds": "How long a restore may take (RTO objective). Left out where it is off.",
    "server_up": "1 where PostgreSQL answered.",
    "archiver_failed_total": "Failures in pg_stat_archiver.",
    "archiver_archived_total": "Files archived by pg_stat_archiver.",
    "archiver_ready_files": "Files that wait in pg_wal.",
}
STORE_METRICS: Final = {
    "store_stored_bytes": "Bytes that the store holds.",
    "store_files": "Files of which the store has a verified copy.",
    "store_base_backups": "Base backups that can be restored from the store.",
    "store_consecutive_failures": "Tries in a row that failed.",
    "store_lag_seconds": "Lag of 19 of 20 copies of the last hour.",
    "store_gaps": "Open gaps.",
    "store_window_begin_timestamp_seconds": "The first moment that can be restored from the store.",
    "store_window_end_timestamp_seconds": "The moment before which the store has each commit.",
    "store_recovery_point_seconds": "RPO of this store alone.",
    "store_recovery_point_is_bound": "1 where store_recovery_point_seconds is an upper bound.",
    "store_tail_behind_seconds": "Age of the oldest bytes that the server has flushed and the store lacks; 0: none.",
    "store_tail_behind_is_bound": "1 where store_tail_behind_seconds is an upper bound.",
    "store_tail_behind_p50_seconds": "From a commit to its verified piece: half of the last hour took no longer.",
    "store_tail_behind_p99_seconds": "From a commit to its verified piece: 99 of 100 of the last hour took no longer.",
    "store_tail_last_commit_timestamp_seconds": "The last commit in the tail.",
    "store_tail_pieces": "Pieces of the open segment on the store.",
    "store_tail_bytes": "Bytes of these pieces, as they are stored.",
    "store_tail_ok": "1 where the open segment is shipped to the store, 0 where it should be and is not.",
    "store_last_base_backup_timestamp_seconds": "When the newest base backup was finished; 0: all are of the future.",
    "store_last_base_backup_damaged_files": "Files with wrong page checksums in the newest base backup.",
    "store_last_base_backup_by_files": "1 where the newest base backup was read by files, 0 through pg_basebackup.",
    "store_last_drill_timestamp_seconds": "When the last drill ended.",
    "store_last_drill_ok": "1 where the last drill passed.",
    "store_restore_seconds": "What the last good drill's restore took (RTO).",
    "store_restore_predicted_seconds": "What a restore to the end of the window is predicted to take.",
}
ACTIVE_ALERTS: Final = "active_alerts"
# Left out where this host has no records: a zero would be said of an archive at which nobody has looked.
_OF_RECORDS: Final = (
    "can_recover",
    "files",
    "wal_bytes",
    "store_stored_bytes",
    "store_files",
    "store_base_backups",
    "store_gaps",
)


class StatusCollector(Collector):
    """One status as metrics. A number that is not known is left out."""

    def __init__(
        self, status: ArchiveStatus, *, spool_limit_bytes: int, rto_objective_seconds: float | None = None
    ) -> None:
        self._status = status
        self._spool_limit_bytes = spool_limit_bytes
        self._rto_objective_seconds = rto_objective_seconds

    def collect(self) -> Iterable[Metric]:
        """Yield every metric that is known."""
        cluster = self._status.facts.cluster
        known = has_records(self._status.facts)
        for name, value in self._cluster_values().items():
            if value is not None and (known or name not in _OF_RECORDS):
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                family = kind(PREFIX + name, CLUSTER_METRICS[name], labels=_LABELS)
                family.add_metric([cluster], float(value))
                yield family
        yield from self._stores(cluster)
        yield self._alerts(cluster)

    def _stores(self, cluster: str) -> Iterable[Metric]:
        values = {store.store: self._store_values(store) for store in self._status.facts.stores}
        for name, text in STORE_METRICS.items():
            family = GaugeMetricFamily(PREFIX + name, text, labels=_STORE_LABELS)
            for store, known in values.items():
                value = known[name]
                if value is not None and (name not in _OF_RECORDS or has_records(self._status.facts)):
                    family.add_metric([cluster, store], float(value))
            if family.samples:
                yield family

    def _alerts(self, cluster: str) -> Metric:
        text = "What needs a person now and nobody acknowledged, by severity."
        family = GaugeMetricFamily(PREFIX + ACTIVE_ALERTS, text, labels=("cluster", "severity"))
        for severity in Severity:
            found = [one for one in self._status.problems if one.severity is severity and not one.acknowledged]
            family.add_metric([cluster, severity.value], len(found))
        return family

    def _cluster_values(self) -> dict[str, float | None]:
        status, facts = self._status, self._status.facts
        latest_at, spool, server = status.point.latest_commit_at, facts.spool, facts.server.facts
        reach = status.point.reach
        tried = sum(one.succeeded + one.failed for one in facts.stores)
        return {
            "up": 1,
            "last_look_timestamp_seconds": facts.at.timestamp(),
            "sensor_last_look_timestamp_seconds": _seconds(facts.sensor_looked_at, missing=None),
            "can_recover": status.can_recover,
            "files": facts.files,
            "wal_bytes": facts.wal_bytes,
            "archive_success_ratio": sum(one.succeeded for one in facts.stores) / tried if tried else None,
            "archive_lag_seconds": lag_seconds(facts) or 0.0,
            "failed_archives": sum(sum(one.other_files.values()) for one in facts.stores),
            "spool_files": None if spool is None else spool.files,
            "spool_bytes": None if spool is None else spool.size_bytes,
            "spool_limit_bytes": self._spool_limit_bytes,
            "spool_oldest_seconds": None if spool is None else _age(facts.at.timestamp(), spool.oldest_at),
            "quarantined_files": None if spool is None else len(spool.quarantined),
            "paused": facts.pause is not None,
            "latest_commit_timestamp_seconds": None if latest_at is None else latest_at.timestamp(),
            "last_commit_age_seconds": None if reach is None else reach.last_commit_age_seconds,
            "recovery_point_seconds": None if reach is None else reach.rpo_seconds,
            "recovery_point_is_bound": None if reach is None else reach.rpo_is_bound,
            "unarchived_bytes": status.point.unarchived_bytes,
            **_shipping_values(facts.shipping),
            "restore_objective_seconds": self._rto_objective_seconds,
            "server_up": None if server is None and facts.server.error is None else server is not None,
            "archiver_failed_total": None if server is None else server.archiver.failed_count,
            "archiver_archived_total": None if server is None else server.archiver.archived_count,
            "archiver_ready_files": None if server is None else server.archiver.ready_count,
        }

    def _store_values(self, store: StoreFacts) -> dict[str, float | None]:
        windows, drill = self._status.facts.windows, store.last_drill
        forecast = self._status.facts.restore_times.get(store.store)
        window = windows.main(store.store)
        reach = self._status.facts.reaches.get(store.store)
        held = [one for one in windows.backups if store.store in windows.holders[one.backup_id]]
        newest_at = newest_finished_at(held, self._status.facts.at)
        newest_key = newest_id({one.backup_id for one in held}, self._status.facts.at)
        newest = next((one for one in held if one.backup_id == newest_key), None)
        return {
            "store_stored_bytes": store.stored_bytes,
            "store_files": store.verified_files,
            "store_base_backups": sum(len(one.backup_ids) for one in windows.windows.get(store.store, ())),
            "store_consecutive_failures": store.state.consecutive_failures,
            "store_lag_seconds": None if store.lag is None else store.lag.p95_seconds,
            "store_gaps": len(windows.open_gaps(store.store)),
            "store_window_begin_timestamp_seconds": None if window is None else window.earliest_at.timestamp(),
            "store_window_end_timestamp_seconds": None if reach is None else reach.at.timestamp(),
            "store_recovery_point_seconds": None if reach is None else reach.rpo_seconds,
            "store_recovery_point_is_bound": None if reach is None else reach.rpo_is_bound,
            **_tail_values(self._status.facts.shipping.tail(store.store)),
            "store_last_base_backup_timestamp_seconds": _seconds(newest_at, missing=0.0 if held else None),
            "store_last_base_backup_damaged_files": None if newest is None else len(newest.damaged_pages),
            "store_last_base_backup_by_files": None if newest is None else newest.method is BackupMethod.LOCAL,
            "store_last_drill_timestamp_seconds": drill.finished_at.timestamp()
            if drill and drill.finished_at
            else None,
            "store_last_drill_ok": None if drill is None else bool(drill.ok),
            "store_restore_seconds": self._status.point.rto_seconds.get(store.store),
            "store_restore_predicted_seconds": None if forecast is None else forecast.seconds,
        }


def _shipping_values(health: ShippingHealth) -> dict[str, float | None]:
    is_judged = health.goal is not None and health.state is not ShippingState.UNKNOWN
    return {
        "shipping_up": not health.state.is_wrong if is_judged and health.state is not ShippingState.PAUSED else None,
        "shipping_promise_seconds": None if health.goal is None else health.goal.promise_seconds,
        "shipping_last_seen_timestamp_seconds": None
        if health.shipping is None
        else health.shipping.seen_at.timestamp(),
        "shipping_slot_held_bytes": None if health.slot is None else health.slot.held_bytes,
    }


def _tail_values(health: TailHealth | None) -> dict[str, float | None]:
    tail = None if health is None else health.tail
    is_known = health is not None and tail is not None and health.state is not ShippingState.PAUSED
    behind = None if health is None else health.behind_seconds
    return {
        "store_tail_behind_seconds": behind,
        "store_tail_behind_is_bound": None if health is None or behind is None else health.is_at_most,
        "store_tail_behind_p50_seconds": None if tail is None else tail.behind_p50_seconds,
        "store_tail_behind_p99_seconds": None if tail is None else tail.behind_p99_seconds,
        "store_tail_last_commit_timestamp_seconds": None
        if tail is None
        else _seconds(tail.last_commit_at, missing=None),
        "store_tail_pieces": None if tail is None else len(tail.pieces),
        "store_tail_bytes": None if tail is None else tail.stored_bytes,
        "store_tail_ok": not health.state.is_wrong if health is not None and is_known else None,
    }


def metrics_text(status: ArchiveStatus, *, spool_limit_bytes: int, rto_objective_seconds: float | None = None) -> str:
    """Return the metrics in Prometheus' text format. ``rto_objective_seconds``: None where it is off."""
    registry = CollectorRegistry()
    registry.register(
        StatusCollector(status, spool_limit_bytes=spool_limit_bytes, rto_objective_seconds=rto_objective_seconds)
    )
    return generate_latest(registry).decode()


def write_textfile(path: Path, text: str) -> None:
    """Put the metrics where node_exporter's textfile collector reads them, whole or not at all.

    Raises: SettingsError where the folder cannot be written.
    """
    try:
        write_whole(text.encode(), path, durable=False, mode=0o644)
    except OSError as error:
        raise SettingsError(
            f"metrics cannot be written to '{path}': {error.strerror}",
            hint=cause_hint(error)
            or "Name a file in a folder that this user can write, such as node_exporter's textfile folder.",
        ) from error


def _seconds(at: datetime | None, *, missing: float | None) -> float | None:
    return missing if at is None else at.timestamp()


def _age(now: float, at: datetime | None) -> float:
    return 0.0 if at is None else max(0.0, now - at.timestamp())
