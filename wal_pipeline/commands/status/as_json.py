"""Turns the status into JSON values, and into the one line of a Nagios plugin."""

from typing import Any

from wal_pipeline.archive.recovery.branches import Branch
from wal_pipeline.archive.recovery.gaps import Gap, GapState
from wal_pipeline.archive.recovery.reach import RecoveryReach
from wal_pipeline.archive.recovery.window import RecoveryWindow
from wal_pipeline.archive.restore_time.words import forecast_values
from wal_pipeline.commands.health.answer import recovery_answer
from wal_pipeline.commands.health.facts import SpoolFacts, StoreFacts
from wal_pipeline.commands.health.shipping import ShippingHealth, TailHealth
from wal_pipeline.commands.status.status import ArchiveStatus, Metric, Problem, lag_seconds
from wal_pipeline.text import moment_json


def status_as_json(status: ArchiveStatus) -> dict[str, Any]:
    """Return the status as JSON values: bytes, seconds and shares as numbers, moments as text."""
    facts, windows = status.facts, status.facts.windows
    return {
        "cluster": facts.cluster,
        "at": moment_json(facts.at),
        "verdict": status.verdict.value,
        "answer": recovery_answer(facts),
        "can_recover": status.can_recover,
        "system_identifier": None if windows.system_identifier is None else str(windows.system_identifier),
        "metrics": {metric.name.replace(" ", "_"): _metric(metric) for metric in status.metrics},
        "latest_commit_at": moment_json(status.point.latest_commit_at),
        **_reach(status.point.reach),
        "unarchived_bytes": status.point.unarchived_bytes,
        "rto_seconds": dict(status.point.rto_seconds),
        "newest_base_backup": _newest(status),
        "files": facts.files,
        "wal_bytes": facts.wal_bytes,
        "stores": {store.store: _store(store, status) for store in facts.stores},
        "windows": [_window(window) for window in windows.windows.get(None, ())],
        "gaps": [_gap(gap) for gap in windows.open_gaps(None)],
        "past_gaps": [_gap(gap) for gap in windows.gaps_in(None, GapState.CLOSED)],
        "breaks": [{"segment": one.segment, "reason": one.reason} for one in windows.open_breaks],
        "branches": [_branch(branch) for branch in windows.branches],
        "spool": None if facts.spool is None else _spool(facts.spool),
        "shipping": _shipping(facts.shipping),
        "pause": None if facts.pause is None else facts.pause.describe(),
        "problems": [_problem(problem) for problem in status.problems],
        "notes": list(windows.notes),
    }


def check_line(status: ArchiveStatus) -> str:
    """Return the line of a Nagios plugin: the verdict, the worst problem, and the figures after a bar."""
    verdict, facts = status.verdict, status.facts
    active = [problem for problem in status.problems if not problem.acknowledged]
    if not active:
        said = recovery_answer(facts).removeprefix(f"{facts.cluster} ")
    else:
        more = f" (and {len(active) - 1} more)" if len(active) > 1 else ""
        said = f"{active[0].kind.value} {active[0].subject}: {active[0].message}{more}"
    said = " ".join(said.replace("|", "/").split())
    return f"WAL-PIPELINE {verdict.value.upper()} - {facts.cluster}: {said} | {' '.join(_figures(status))}"


def _figures(status: ArchiveStatus) -> list[str]:
    facts, lag = status.facts, lag_seconds(status.facts)
    figures = [] if lag is None else [f"lag={lag:.1f}s"]
    if facts.spool is not None:
        figures += [f"spool_files={facts.spool.files}", f"spool_bytes={facts.spool.size_bytes}B"]
    reach = status.point.reach
    if reach is not None and reach.rpo_seconds is not None:
        figures.append(f"{'rpo_at_most' if reach.rpo_is_bound else 'rpo'}={reach.rpo_seconds:.0f}s")
    if reach is not None and reach.last_commit_age_seconds is not None:
        figures.append(f"last_commit_age={reach.last_commit_age_seconds:.0f}s")
    return [*figures, f"alerts={len(status.problems)}"]


def _newest(status: ArchiveStatus) -> dict[str, Any] | None:
    """Return the newest base backup of any store."""
    newest = max(status.facts.windows.backups, key=lambda one: one.finished_at, default=None)
    if newest is None:
        return None
    return {
        "id": newest.backup_id,
        "kind": newest.kind.value,
        "method": newest.method.value,
        "finished_at": moment_json(newest.finished_at),
        "note": newest.note,
        "damaged_files": len(newest.damaged_pages),
    }


def _metric(metric: Metric) -> dict[str, Any]:
    return {"value": metric.value, "shown": metric.shown, "goal": metric.goal, "verdict": metric.verdict.value}


def _store(store: StoreFacts, status: ArchiveStatus) -> dict[str, Any]:
    windows, drill, forecast = status.facts.windows, store.last_drill, status.facts.restore_times.get(store.store)
    return {
        "verified_files": store.verified_files,
        "wal_bytes": store.wal_bytes,
        "base_backup_bytes": store.base_backup_bytes,
        "stored_bytes": store.stored_bytes,
        "base_backups": sum(copy.restorable_at is not None for copy in store.base_backups),
        "success_rate": store.success_rate,
        "lag_p95_seconds": None if store.lag is None else store.lag.p95_seconds,
        "consecutive_failures": store.state.consecutive_failures,
        "last_error": store.state.last_error if store.state.consecutive_failures else None,
        **_reach(status.facts.reaches.get(store.store)),
        "restore_forecast": None if forecast is None else forecast_values(forecast),
        "windows": [_window(window) for window in windows.windows.get(store.store, ())],
        "gaps": [_gap(gap) for gap in windows.open_gaps(store.store)],
        "past_gaps": [_gap(gap) for gap in windows.gaps_in(store.store, GapState.CLOSED)],
        "tail": _tail(status.facts.shipping.tail(store.store)),
        "last_drill": None if drill is None else {"finished_at": moment_json(drill.finished_at), "ok": drill.ok},
    }


def _reach(reach: RecoveryReach | None) -> dict[str, Any]:
    """Return how far a window reaches. ``rpo_unknown`` says why ``rpo_seconds`` is only a bound, or is not known."""
    return {
        "reaches_at": None if reach is None else moment_json(reach.at),
        "rpo_seconds": None if reach is None else reach.rpo_seconds,
        "rpo_is_at_most": None if reach is None else reach.rpo_is_bound,
        "rpo_unknown": None if reach is None else reach.unknown,
        "last_commit_age_seconds": None if reach is None else reach.last_commit_age_seconds,
    }


def _window(window: RecoveryWindow) -> dict[str, Any]:
    return {
        "timeline": window.timeline,
        "earliest_at": moment_json(window.earliest_at),
        "earliest_lsn": str(window.earliest_lsn),
        "latest_commit_at": moment_json(window.latest_commit_at),
        "latest_commit_at_least": moment_json(window.latest_commit_at_least),
        "reaches_at_least": moment_json(window.reaches_at_least),
        "latest_lsn": str(window.latest_lsn),
        "first_segment": window.first_segment,
        "last_segment": window.last_segment,
        "segments": window.segments,
        "ended_by": window.ended_by.value,
        "tail_pieces": 0 if window.tail is None else len(window.tail.pieces),
        "base_backups": list(window.backup_ids),
    }


def _branch(branch: Branch) -> dict[str, Any]:
    return {
        "timeline": branch.timeline,
        "beside": branch.chosen,
        "parted_at_lsn": str(branch.left_at_lsn),
        "last_segment": branch.last_segment,
        "last_at": moment_json(branch.last_at),
        "beside_last_at": moment_json(branch.chosen_at),
        "live": branch.is_live,
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "timeline": gap.timeline,
        "first_missing": gap.first_missing,
        "last_missing": gap.last_missing,
        "segments": gap.segments,
        "held_elsewhere": gap.held_elsewhere,
        "held_by": list(gap.held_by),
        "last_commit_before_at": moment_json(gap.last_commit_before_at),
        "first_commit_after_at": moment_json(gap.first_commit_after_at),
    }


def _spool(spool: SpoolFacts) -> dict[str, Any]:
    return {
        "files": spool.files,
        "bytes": spool.size_bytes,
        "growing": spool.growing,
        "oldest_at": moment_json(spool.oldest_at),
        "quarantined": len(spool.quarantined),
        "error": spool.error,
    }


def _shipping(health: ShippingHealth) -> dict[str, Any]:
    """Return whether the open segment is shipped. What each store has of it stands with the store."""
    shipping, goal, slot = health.shipping, health.goal, health.slot
    return {
        "state": health.state.value,
        "reason": health.reason,
        "since_at": moment_json(health.since_at),
        "interval_seconds": None if goal is None else goal.interval_seconds,
        "promise_seconds": None if goal is None else goal.promise_seconds,
        "source": None if goal is None else goal.source,
        "seen_at": None if shipping is None else moment_json(shipping.seen_at),
        "flushed_lsn": None if shipping is None or shipping.flushed_lsn is None else str(shipping.flushed_lsn),
        "slot": None if slot is None else {"name": slot.slot, "held_bytes": slot.held_bytes, "error": slot.error},
    }


def _tail(health: TailHealth | None) -> dict[str, Any] | None:
    """Return what a store has beyond its whole segments; None where shipping is off."""
    if health is None:
        return None
    tail = health.tail
    return {
        "state": health.state.value,
        "reason": health.reason,
        "behind_seconds": health.behind_seconds,
        "behind_is_at_most": health.is_at_most,
        "behind_p50_seconds": None if tail is None else tail.behind_p50_seconds,
        "behind_p99_seconds": None if tail is None else tail.behind_p99_seconds,
        "shipped_lsn": None if tail is None or tail.shipped_lsn is None else str(tail.shipped_lsn),
        "timeline": None if tail is None else tail.timeline,
        "complete_at": None if tail is None else moment_json(tail.complete_at),
        "last_commit_at": None if tail is None else moment_json(tail.last_commit_at),
        "pieces": None if tail is None else len(tail.pieces),
        "stored_bytes": None if tail is None else tail.stored_bytes,
        "conflict": None if tail is None else tail.conflict,
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "kind": problem.kind.value,
        "subject": problem.subject,
        "severity": problem.severity.value,
        "message": problem.message,
        "since_at": moment_json(problem.since_at),
        "acknowledged": problem.acknowledged,
    }
