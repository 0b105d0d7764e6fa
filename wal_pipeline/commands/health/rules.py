"""Finds the causes of alerts in the facts: each rule returns the observations of one kind. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from wal_pipeline.archive.alerts import AlertKind, Observation, Severity
from wal_pipeline.archive.recovery.gaps import Gap
from wal_pipeline.catalog.measures import FailedCopy
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.alerts.clones import lasting_ends
from wal_pipeline.commands.archive_push.alerts import copy_subject
from wal_pipeline.commands.cluster_identity import FIXED_VARIABLE
from wal_pipeline.commands.health.backup_rules import (
    base_backup_failed,
    base_backup_waiting,
    base_backup_warning,
    pages_damaged,
)
from wal_pipeline.commands.health.facts import MOST_FAILED_COPIES, HealthFacts, StoreFacts
from wal_pipeline.commands.health.rto_rules import restore_slow
from wal_pipeline.commands.health.shipping_rules import not_shipping, slot_holds_wal, tail_conflict, tail_old
from wal_pipeline.commands.health.windows import newest_finished_at, usable_backups
from wal_pipeline.postgres.server_facts import ServerFacts, archiver_trouble
from wal_pipeline.text import coarse_length, coarse_size, counted, moment_utc
from wal_pipeline.wal.names import FileKind, parse_file_name

_MOST_GAPS: Final = 20
_MOST_FILES: Final = 20
_QUARANTINED: Final = re.compile(r"(.+)\.\d{8}T\d{6}\.\d+Z(?:\.\d+)?\Z")
_IDLE_WAL_BYTES: Final = 64 * 1024  # an idle server writes so much: checkpoints, snapshots of transactions
_SENSOR_SILENT: Final = timedelta(minutes=15)
_BRANCH_FORGOTTEN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Alert thresholds. Seconds, bytes, hours and days as the names say; shares are 0 to 1."""

    archive_timeout_seconds: float = 300.0
    lag_goal_seconds: float = 300.0
    success_rate_goal: float = 0.99
    spool_limit_bytes: int = 10 * 2**30
    spool_near_full_share: float = 0.8
    disk_low_share: float = 0.1
    store_down_failures: int = 3
    copy_failed_tries: int = 3
    base_backup_max_age_hours: float = 50.0
    drill_max_age_days: float = 35.0
    health_interval_seconds: float = 60.0
    rto_objective_seconds: float | None = 3600.0


Rule = Callable[[HealthFacts, HealthLimits], "list[Observation] | None"]


def observe(facts: HealthFacts, limits: HealthLimits) -> dict[AlertKind, list[Observation]]:
    """Return the observations of each kind of alert; a kind that cannot be judged by these facts is left out."""
    rules = _RULES if facts.catalog_error is None else {kind: _RULES[kind] for kind in _WITHOUT_CATALOG}
    judged = ((kind, rule(facts, limits)) for kind, rule in rules.items())
    return {kind: observations for kind, observations in judged if observations is not None}


def _archiver_failing(facts: HealthFacts, _limits: HealthLimits) -> list[Observation] | None:
    server = facts.server.facts
    if server is None:
        return None
    if server.in_recovery and server.archive_mode != "always":
        return []
    if not server.archiver_is_wanted:
        return [Observation("server", f"archive_mode is '{server.archive_mode}': PostgreSQL archives nothing")]
    trouble = archiver_trouble(server.archiver)
    return [] if trouble is None else [Observation("server", trouble)]


def _no_new_wal(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    """Judge a server that archives nothing: it may be idle, so only WAL that waits to be archived is a reason."""
    server = facts.server.facts
    patience = timedelta(seconds=2 * limits.archive_timeout_seconds + 60)
    if server is None:
        is_known = facts.server.error is not None and facts.catalog_error is None
        return _silent_server(facts, patience) if is_known else None
    if not server.archiver_is_wanted or server.in_recovery:
        return []
    last_at = server.archiver.last_archived_at
    waits = _waiting_wal(server)
    if waits is None or (last_at is not None and server.server_at - last_at < patience):
        return []
    since = "nothing was ever archived" if last_at is None else f"nothing archived since {moment_utc(last_at)}"
    return [Observation("server", f"{since}, while {waits}")]


def _waiting_wal(server: ServerFacts) -> str | None:
    if server.archiver.ready_count:
        return f"{server.archiver.ready_count} files wait in pg_wal"
    last = parse_file_name((server.archiver.last_archived_wal or "")[:24])
    if last is None or last.kind is not FileKind.SEGMENT:
        return f"the server is at {server.wal_lsn}"
    beyond = server.wal_lsn - last.end_lsn(server.wal_segment_size)
    return f"{beyond} bytes of WAL were written after '{last.name}'" if beyond > _IDLE_WAL_BYTES else None


def _silent_server(facts: HealthFacts, patience: timedelta) -> list[Observation]:
    newest_at = max((lag.last_verified_at for lag in (store.lag for store in facts.stores) if lag), default=None)
    if newest_at is not None and facts.at - newest_at < patience:
        return []
    reason = (facts.server.error or "").split(" Is the server running", 1)[0]
    message = f"no new WAL came, and whether there is any cannot be asked: {reason}"
    return [Observation("server", message)]


def _spool_growing(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    spool = facts.spool
    if spool is None:
        return None
    if spool.error is not None:
        return [Observation("spool", spool.error, Severity.CRITICAL)]
    if facts.pause is not None or spool.oldest_at is None:
        return []
    waited, goal = facts.at - spool.oldest_at, timedelta(seconds=limits.lag_goal_seconds)
    if waited <= goal:
        return []
    message = (
        f"{spool.files} files ({coarse_size(spool.size_bytes)}) wait in the spool, the oldest '{spool.oldest_name}' "
        f"for {coarse_length(waited)}, expected at most {coarse_length(goal)}"
    )
    return [Observation("spool", message)]


def _spool_near_full(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    spool = facts.spool
    if spool is None or spool.error is not None:
        return None
    if spool.size_bytes < limits.spool_near_full_share * limits.spool_limit_bytes:
        return []
    held, limit = coarse_size(spool.size_bytes), coarse_size(limits.spool_limit_bytes)
    return [Observation("spool", f"the spool holds {held} of {limit}")]


def _disk_low(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    return [
        Observation(
            disk.folder,
            f"the disk of '{disk.folder}' has {coarse_size(disk.free_bytes)} free of {coarse_size(disk.size_bytes)} "
            f"({disk.free_share:.1%}), expected at least {limits.disk_low_share:.0%}",
        )
        for disk in facts.disks
        if disk.free_share < limits.disk_low_share
    ]


def _store_down(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    return [
        Observation(one.store, _failures_in_a_row(one.state))
        for one in facts.stores
        if one.state.consecutive_failures >= limits.store_down_failures
    ]


def _down(facts: HealthFacts, limits: HealthLimits) -> set[str]:
    """Return the stores that are down: their own alert says so, and no other one repeats it."""
    return {one.subject for one in _store_down(facts, limits) or ()}


def _failures_in_a_row(state: StoreState) -> str:
    before = f", the last success was at {moment_utc(state.last_success_at)}" if state.last_success_at else ""
    return f"{state.consecutive_failures} tries in a row failed{before}: {state.last_error}"


def _copy_failed(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    """Judge failed copies; while a store is down, its alert alone says so, and not one alert for each file."""
    down = _down(facts, limits)
    up = {store.store for store in facts.stores} - down
    found = [
        Observation(copy_subject(one.name, one.store), _why_failed(facts, one), details={"tries": one.tries})
        for one in facts.failed_copies
        if one.store in up
    ]
    return _at_most(found, MOST_FAILED_COPIES, "more copies failed")


def _why_failed(facts: HealthFacts, copy: FailedCopy) -> str:
    """Return the reason, and the cure where there is one: a file that left the spool is not tried again by itself."""
    if copy.held_by is None or facts.spool is None or copy.name in facts.spool.names:
        return copy.last_error
    cure = f"'wal-pipeline verify --repair' copies it from {copy.held_by}"
    return f"{copy.last_error}; it is in the spool no more: {cure}"


def _quarantine(facts: HealthFacts, _limits: HealthLimits) -> list[Observation] | None:
    """Judge each file in quarantine, and each that should be there but could not be moved.

    An open alert keeps the message of the archiving run. In quarantine, a moment stands behind the file's name.
    """
    spool = facts.spool
    if spool is None:
        return None
    told = {alert.subject: alert.message for alert in facts.alerts if alert.kind is AlertKind.QUARANTINE}
    found = {name: f"{message}; it stays in the spool" for name, message in spool.stuck.items()}
    for name in spool.quarantined:
        found[_file_name(name)] = f"'{name}' in '{spool.quarantine_folder}' was not archived"
    if spool.quarantine_error is not None:
        found[spool.quarantine_folder] = spool.quarantine_error
    is_known = spool.error is None and spool.quarantine_error is None  # else the open alerts stay as they are
    found |= {name: said for name, said in told.items() if name in found or name in spool.names or not is_known}
    seen = [Observation(name, message) for name, message in sorted(found.items())]
    return _at_most(seen, _MOST_FILES, "more files in quarantine")


def _file_name(quarantined: str) -> str:
    match = _QUARANTINED.match(quarantined)
    return match[1] if match else quarantined


def _at_most(found: list[Observation], most: int, more: str) -> list[Observation]:
    """Keep the first ``most`` causes, and put one that counts the others after them."""
    if len(found) <= most:
        return found
    worst = max((one.severity for one in found if one.severity), key=lambda one: one.rank, default=None)
    return [*found[:most], Observation("more", f"{len(found) - most} {more}", worst)]


def _gaps(facts: HealthFacts, _limits: HealthLimits) -> list[Observation] | None:
    """Judge the gaps. A segment in the spool is on its way; one that another store holds can be copied from there."""
    names = facts.spool.names if facts.spool is not None else frozenset[str]()
    found: list[Observation] = []
    for store in (None, *facts.windows.stores):
        for gap in facts.windows.open_gaps(store):
            if not gap.is_among(names) and (store is None or gap.held_elsewhere):
                found.append(_gap(gap))
    found += [
        Observation(
            f"break {one.segment}",
            f"no recovery passes into '{one.segment}': {one.reason}; a base backup begins a new recovery window",
        )
        for one in facts.windows.open_breaks
    ]
    return _at_most(found, _MOST_GAPS, "more gaps")


def _older_timeline(facts: HealthFacts, _limits: HealthLimits) -> list[Observation] | None:
    """Judge the timelines that are written to beside a newer one, now or until a day ago."""
    return [
        Observation(
            f"timeline {branch.timeline}",
            f"{branch.describe()}: two servers archive side by side; a restore wants --timeline, and the one that is "
            "not wanted must stop, or archive under a cluster name of its own",
        )
        for branch in facts.windows.branches
        if branch.is_live or (branch.last_at is not None and facts.at - branch.last_at < _BRANCH_FORGOTTEN)
    ]


def _gap(gap: Gap) -> Observation:
    count = f"{counted(gap.segments, 'segment')} {'are' if gap.segments > 1 else 'is'}"
    span = f"'{gap.first_missing}'" + (f" to '{gap.last_missing}'" if gap.segments > 1 else "")
    if gap.store is None:
        lost = ""
        if gap.last_commit_before_at is not None:
            lost = f"; moments after {moment_utc(gap.last_commit_before_at)} cannot be restored across it"
        return Observation(f"any store {gap.first_missing}", f"{count} on no store: {span}{lost}")
    message = f"{count} not on {gap.store}: {span}; {gap.held_elsewhere} of them can be copied from another store"
    severity = Severity.WARNING if gap.held_elsewhere == gap.segments else Severity.CRITICAL
    return Observation(f"{gap.store} {gap.first_missing}", message, severity)


def _base_backup_old(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    if not facts.files:
        return []  # nothing is archived yet: setup, not neglect
    return [seen for store in facts.stores if (seen := _old_backup(facts, store, limits)) is not None]


def _old_backup(facts: HealthFacts, store: StoreFacts, limits: HealthLimits) -> Observation | None:
    usable = usable_backups(facts.windows, store.store)
    if not usable:
        message = "no base backup: nothing can be restored from there, whatever WAL it holds"
        return Observation(store.store, message, Severity.CRITICAL)
    newest_at = newest_finished_at(usable, facts.at)
    if newest_at is None:
        return Observation(store.store, "every base backup is dated in the future: a clock is or was wrong")
    age, limit = facts.at - newest_at, timedelta(hours=limits.base_backup_max_age_hours)
    if age <= limit:
        return None
    message = f"the newest base backup is {coarse_length(age)} old, expected at most {coarse_length(limit)}"
    return Observation(store.store, message)


def _drill_failed(facts: HealthFacts, _limits: HealthLimits) -> list[Observation] | None:
    return [
        Observation(
            store.store,
            f"the last drill failed at {moment_utc(store.last_drill.finished_at or store.last_drill.started_at)}"
            f"{_reason(store.last_drill.detail)}",
        )
        for store in facts.stores
        if store.last_drill is not None and not store.last_drill.ok
    ]


def _drill_old(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    limit = timedelta(days=limits.drill_max_age_days)
    first_backup_at = min((one.finished_at for one in facts.windows.backups), default=None)
    found = []
    for store in facts.stores:
        since = store.last_drill.finished_at if store.last_drill is not None else first_backup_at
        if since is not None and facts.at - since > limit:
            was = "the last drill is" if store.last_drill is not None else "never drilled; the first base backup is"
            age = coarse_length(facts.at - since)
            found.append(Observation(store.store, f"{was} {age} old, expected {coarse_length(limit)}"))
    return found


def _sensor_silent(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    """Judge the health sensor. Without Dagster there is none to miss; a wrong clock dated a look in the future."""
    looked_at = facts.sensor_looked_at
    patience = max(_SENSOR_SILENT, timedelta(seconds=3 * limits.health_interval_seconds))
    if looked_at is None or facts.at - looked_at < patience:
        return []
    silent = f"Dagster's health sensor has not looked since {moment_utc(looked_at)}"
    return [Observation("health_sensor", f"{silent}: see that its daemon and code location run")]


def _not_shipping(facts: HealthFacts, limits: HealthLimits) -> list[Observation] | None:
    """Judge whether anything ships. A server that does not answer has an alert of its own, and commits nothing."""
    is_silent = facts.server.error is not None and _no_new_wal(facts, limits)
    return [] if is_silent else not_shipping(facts)


def _catalog_down(facts: HealthFacts, _limits: HealthLimits) -> list[Observation] | None:
    return [] if facts.catalog_error is None else [Observation("catalog", facts.catalog_error)]


def _wrong_cluster(facts: HealthFacts, _limits: HealthLimits) -> list[Observation] | None:
    """Judge the setting against the live server, which wins: after pg_upgrade the setting names the old cluster."""
    server, fixed = facts.server.facts, facts.fixed_identifier
    if fixed is None:
        return []
    if server is None:
        return None
    if server.system_identifier == fixed:
        return []
    message = f"{FIXED_VARIABLE} is {fixed}, the server has {server.system_identifier}: its WAL stays in the spool"
    return [Observation("server", message)]


def _paused(facts: HealthFacts, _limits: HealthLimits) -> list[Observation] | None:
    return [] if facts.pause is None else [Observation("archiving", facts.pause.describe())]


_RULES: Final[Mapping[AlertKind, Rule]] = {
    AlertKind.ARCHIVER_FAILING: _archiver_failing,
    AlertKind.NO_NEW_WAL: _no_new_wal,
    AlertKind.SPOOL_GROWING: _spool_growing,
    AlertKind.SPOOL_NEAR_FULL: _spool_near_full,
    AlertKind.DISK_LOW: _disk_low,
    AlertKind.STORE_DOWN: _store_down,
    AlertKind.COPY_FAILED: _copy_failed,
    AlertKind.QUARANTINE: _quarantine,
    AlertKind.GAP: _gaps,
    AlertKind.OLDER_TIMELINE: _older_timeline,
    AlertKind.BASE_BACKUP_FAILED: lambda facts, _limits: base_backup_failed(facts),
    AlertKind.BASE_BACKUP_OLD: _base_backup_old,
    AlertKind.BASE_BACKUP_WAITING: lambda facts, _limits: base_backup_waiting(facts),
    AlertKind.BASE_BACKUP_WARNING: lambda facts, _limits: base_backup_warning(facts),
    AlertKind.PAGES_DAMAGED: lambda facts, _limits: pages_damaged(facts),
    AlertKind.DRILL_FAILED: _drill_failed,
    AlertKind.DRILL_OLD: _drill_old,
    AlertKind.PAUSED: _paused,
    AlertKind.SENSOR_SILENT: _sensor_silent,
    AlertKind.NOT_SHIPPING: _not_shipping,
    AlertKind.TAIL_OLD: lambda facts, limits: tail_old(facts, _down(facts, limits)),
    AlertKind.TAIL_CONFLICT: lambda facts, _limits: tail_conflict(facts),
    AlertKind.SLOT_HOLDS_WAL: lambda facts, _limits: slot_holds_wal(facts),
    AlertKind.RESTORE_SLOW: lambda facts, limits: restore_slow(facts, limits.rto_objective_seconds),
    AlertKind.CLONE_ENDED: lambda facts, _limits: lasting_ends(facts.alerts, facts.at),
    AlertKind.CATALOG_DOWN: _catalog_down,
    AlertKind.WRONG_CLUSTER: _wrong_cluster,
}
_WITHOUT_CATALOG: Final = (
    AlertKind.CATALOG_DOWN,
    AlertKind.WRONG_CLUSTER,
    AlertKind.ARCHIVER_FAILING,
    AlertKind.NO_NEW_WAL,
    AlertKind.SPOOL_GROWING,
    AlertKind.SPOOL_NEAR_FULL,
    AlertKind.DISK_LOW,
    AlertKind.QUARANTINE,
)


def _reason(detail: Mapping[str, object]) -> str:
    said = next((detail[name] for name in ("error", "message", "reason") if detail.get(name)), None)
    return "" if said is None else f": {said}"
