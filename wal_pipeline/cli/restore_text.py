"""Turns a restore's plan and result into text for a person and into values for JSON."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wal_pipeline.archive.recovery.restore_plan import PlannedBackup
from wal_pipeline.archive.restore_time.words import comparison_text, forecast_sentence, forecast_values
from wal_pipeline.commands.restore.chosen.words import chosen_text, chosen_values, finished_lines, finished_values
from wal_pipeline.commands.restore.perform import RestoreResult, apart_in_a_copy
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.standby.words import standby_role, standby_rows, start_words, target_words
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.postgres.isolation import told_apart
from wal_pipeline.postgres.recovery import AUTO_CONF, TargetAction
from wal_pipeline.postgres.replay_progress import RecoveryState
from wal_pipeline.text import moment_json, size


def plan_text(prepared: PreparedRestore, cluster: str) -> str:
    """Return the plan as a few lines."""
    plan, request = prepared.plan, prepared.request
    rows = [
        ("target", target_words(prepared, exclusive=", exclusive")),
        *standby_rows(prepared),
        *(("base backup", _backup(one)) for one in plan.chain if not request.wal_only),
        ("WAL", _wal(prepared)),
        ("last commit", _commit(plan.commit_at_least, plan.commit_at_most)),
        ("download", f"{_at_most(prepared)}{size(prepared.download_bytes)} before the start, WAL while it recovers"),
        *([] if prepared.forecast is None else [("time", forecast_sentence(prepared.forecast, datetime.now(UTC)))]),
        *([] if prepared.chosen is None else [("databases", chosen_text(prepared.chosen))]),
        *([("encryption", "age; an identity at hand opens it")] if prepared.encrypted else []),
        ("data directory", f"{request.pgdata}{_removed(prepared, request.pgdata)}"),
        *(
            ("tablespace", f"{move.oid}: {move.old} to {move.new}{_removed(prepared, move.new)}")
            for move in prepared.moves
        ),
        ("server", f"PostgreSQL {prepared.binaries.major} in {prepared.binaries.bindir}, user id {prepared.user.uid}"),
        *(
            ("disk", f"{need.folder}: {size(need.needed_bytes)} of {size(need.free_bytes)} free")
            for need in prepared.disk
        ),
        ("archiving", _role(prepared)),
        *([("set apart", ", ".join(apart_in_a_copy(prepared)))] if request.is_copy else []),
        *(("note", note) for note in (*prepared.notes, *_role_notes(prepared))),
        *(("will refuse", _refusal(refusal)) for refusal in prepared.refusals),
    ]
    head = f"Restore of cluster '{cluster}' (system identifier {plan.system_identifier})"
    return "\n".join([head, *(f"  {name:<15} {text}" for name, text in rows)])


def _refusal(refusal: WalPipelineError) -> str:
    return " ".join(f"{refusal.message}. {refusal.hint or ''}".split())


def _role(prepared: PreparedRestore) -> str:
    archiving, standby = prepared.request.archiving, standby_role(prepared)
    if standby is not None:
        return standby
    if archiving is None:
        return "not decided: --archiving for the server that takes its original's place, --no-archiving for a copy"
    return (
        "as its configuration says: it takes its original's place" if archiving else "off: a copy beside its original"
    )


def _role_notes(prepared: PreparedRestore) -> list[str]:
    """Say what a person has to know who starts the server, before anything is downloaded."""
    request = prepared.request
    notes = [f"{sign}." for sign in request.signs_of_original if not request.is_copy]
    if request.archiving and any("answers" in sign for sign in request.signs_of_original):
        notes.append("Stop the original before this server opens: both would archive into one archive.")
    if request.is_copy:
        notes.append("It listens where its configuration says; --set port=5433 gives it a port of its own at --start.")
    notes.append(
        f"Without --start, start it with: {start_line(prepared)} (a data_directory in a configuration file "
        "would open another folder, and cannot be overruled in postgresql.auto.conf)."
    )
    return notes


def start_line(prepared: PreparedRestore) -> str:
    """Return the line that starts the restored server so that no configuration file makes it serve another folder."""
    folder = shlex.quote(str(prepared.request.pgdata))
    program = prepared.binaries.bindir / "pg_ctl"
    return f"{program} start -D {folder} -o {shlex.quote('-c data_directory=' + folder)}"


def _removed(prepared: PreparedRestore, folder: Path) -> str:
    if folder not in prepared.emptied:
        return ""
    return " (what is right in it stays, the rest is removed)" if prepared.keeps else " (its old content is removed)"


def _kept(result: RestoreResult) -> str:
    return f", {size(result.kept_bytes)} were right already" if result.kept_bytes else ""


def _at_most(prepared: PreparedRestore) -> str:
    return "at most " if prepared.keeps else ""


def _backup(planned: PlannedBackup) -> str:
    backup = planned.backup
    finished = backup.finished_at.isoformat(" ")
    return f"{backup.title}, {backup.kind.value}, finished {finished}, on {' and '.join(planned.stores)}"


def _wal(prepared: PreparedRestore) -> str:
    plan = prepared.plan
    if not plan.wal:
        return "none"
    timelines = ", ".join(str(timeline) for timeline in plan.timelines)
    last = plan.wal[-1].name if plan.tail is None else f"{plan.wal[-1].name} (shipped up to {plan.tail.end_lsn})"
    return f"{len(plan.wal)} segments, {plan.wal[0].name} to {last}, timeline {timelines}"


def _commit(at_least: datetime | None, at_most: datetime | None) -> str:
    if at_least is not None and at_least == at_most:
        return at_least.isoformat(" ")
    if at_least is None and at_most is None:
        return "not known"
    return " ".join(
        f"{word} {at.isoformat(' ')}"
        for word, at in (("not before", at_least), ("not after", at_most))
        if at is not None
    )


def plan_values(prepared: PreparedRestore) -> dict[str, Any]:
    """Return the plan for JSON."""
    plan = prepared.plan
    return {
        "system_identifier": str(plan.system_identifier),
        "pgdata": str(prepared.request.pgdata),
        "encrypted": prepared.encrypted,
        "emptied": [str(folder) for folder in prepared.emptied],
        "target": str(plan.asked),
        "inclusive": plan.asked.inclusive,
        "action": prepared.request.action.value,
        "timeline": plan.timeline,
        "standby": prepared.request.standby is not None,
        "wal_only": prepared.request.wal_only,
        "base_backups": [
            {"id": one.backup.backup_id, "stores": list(one.stores), "note": one.backup.note}
            for one in plan.chain
            if not prepared.request.wal_only
        ],
        "wal": {
            "segments": len(plan.wal),
            "first": plan.wal[0].name if plan.wal else None,
            "last": plan.wal[-1].name if plan.wal else None,
            "shipped_to_lsn": None if plan.tail is None else str(plan.tail.end_lsn),
        },
        "commit_at_least": moment_json(plan.commit_at_least),
        "commit_at_most": moment_json(plan.commit_at_most),
        "download_bytes": prepared.download_bytes,
        "keeps_right_files": prepared.keeps,
        "forecast": None if prepared.forecast is None else forecast_values(prepared.forecast),
        **chosen_values(prepared.chosen),
        "notes": list(prepared.notes),
        "will_refuse": [{"message": one.message, "hint": one.hint} for one in prepared.refusals],
        "archiving": prepared.request.archiving,
        "signs_of_original": list(prepared.request.signs_of_original),
        "set_apart": list(apart_in_a_copy(prepared)) if prepared.request.is_copy else [],
    }


def result_text(prepared: PreparedRestore, result: RestoreResult, recovery: RecoveryResult | None) -> str:
    """Return what was done and, where the server was started, the moment reached."""
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    done = f"Restored into {result.pgdata}: {size(result.downloaded_bytes)} downloaded{_kept(result)}; {phases}"
    lines = [f"The recovery of {result.pgdata} is set up; its files stayed" if prepared.request.wal_only else done]
    lines += _compared(result)
    lines += [f"Changed in its configuration: {words}" for words in result.mended]
    warnings = (*result.warnings, *(() if recovery is None else recovery.warnings))
    lines += [f"WARNING: {words}" for words in warnings]
    if recovery is None:
        return "\n".join([*lines, *_to_be_started(prepared), *_database_lines(prepared, result)])
    words = {
        RecoveryState.OPEN: f"Recovery has ended; the server is open on timeline {recovery.timeline}",
        RecoveryState.FOLLOWING: "The standby follows, and takes read-only sessions",
        RecoveryState.PAUSED: "Recovery is paused at the target; look, then: SELECT pg_wal_replay_resume()",
        RecoveryState.SHUT_DOWN: "Recovery reached the target and the server shut down",
    }
    lines.append(words[recovery.state])
    reached = "no commit was replayed" if recovery.last_commit_at is None else recovery.last_commit_at.isoformat(" ")
    if recovery.last_commit_at is None and recovery.state in (RecoveryState.PAUSED, RecoveryState.FOLLOWING):
        reached = "ask pg_last_xact_replay_timestamp()"
    if recovery.state is RecoveryState.SHUT_DOWN:
        reached = recovery.stopped or "not told"
    lines.append(f"  last replayed commit  {reached}")
    lines.append(f"  last replayed LSN     {recovery.replayed_lsn or 'not told'}")
    lines.append(
        "  seconds               " + ", ".join(f"{name} {value:.1f}" for name, value in recovery.seconds.items())
    )
    lines.append(f"  log                   {recovery.log} (until the server's next restart)")
    if prepared.request.is_copy:
        apart = ", ".join(told_apart({"data_directory": "", **recovery.settings}))
        lines.append(
            f"  set apart             {apart}; also after a restart, by {AUTO_CONF}, but for the data directory"
        )
    lines += [f"  lower than before     {words}" for words in recovery.lower_words]
    lines += _database_lines(prepared, result)
    return "\n".join(lines)


def _compared(result: RestoreResult) -> list[str]:
    """Compare the time that all this took with what the plan said; nothing where that was not known."""
    if result.predicted_seconds is None or result.took_seconds is None:
        return []
    return [f"Time: {comparison_text(result.predicted_seconds, result.took_seconds)}"]


def _database_lines(prepared: PreparedRestore, result: RestoreResult) -> list[str]:
    return [] if prepared.chosen is None else finished_lines(prepared.chosen, result.databases)


def _to_be_started(prepared: PreparedRestore) -> list[str]:
    """Say that nothing is recovered yet, how the server is started, and how a person sees where it ended."""
    plan = prepared.plan
    if prepared.request.standby is not None:
        return list(start_words(start_line(prepared)))
    lines = [
        "Nothing is recovered yet. Start the server, with the stores' settings in its environment or settings file:",
        f"  {start_line(prepared)}",
        f"The plan is {plan.asked}, last commit {_commit(plan.commit_at_least, plan.commit_at_most)}. Nothing compares "
        "it with what is reached: look, before anyone uses the server:",
        "  SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), pg_last_xact_replay_timestamp()",
    ]
    if prepared.request.action is not TargetAction.PAUSE:
        lines.append(
            f"hot_standby = off stands in {AUTO_CONF}, so that recovery does not pause where a setting is lower than "
            "on the original. Before you make a standby of this server: ALTER SYSTEM RESET hot_standby"
        )
    return lines


def result_values(prepared: PreparedRestore, result: RestoreResult, recovery: RecoveryResult | None) -> dict[str, Any]:
    """Return the result for JSON."""
    values: dict[str, Any] = {
        "downloaded_bytes": result.downloaded_bytes,
        "kept_bytes": result.kept_bytes,
        "seconds": {name: round(seconds, 3) for name, seconds in result.seconds.items()},
        "predicted_seconds": None if result.predicted_seconds is None else round(result.predicted_seconds, 3),
        "took_seconds": None if result.took_seconds is None else round(result.took_seconds, 3),
        "faults": [{"store": one.store, "key": one.key, "message": one.message} for one in result.faults],
        "configuration_changed": list(result.mended),
        "warnings": [*result.warnings, *(() if recovery is None else recovery.warnings)],
        **finished_values(prepared.chosen, result.databases),
        "recovery": None,
    }
    if recovery is not None:
        values["recovery"] = {
            "state": recovery.state.value,
            "last_commit_at": moment_json(recovery.last_commit_at),
            "replayed_lsn": None if recovery.replayed_lsn is None else str(recovery.replayed_lsn),
            "timeline": recovery.timeline,
            "stopped": recovery.stopped,
            "files_restored": recovery.segments,
            "seconds": {name: round(seconds, 3) for name, seconds in recovery.seconds.items()},
            "log": str(recovery.log),
            "pid": recovery.pid,
            "set_apart": list(told_apart(recovery.settings)) if prepared.request.is_copy else [],
            "lower_than_before": list(recovery.lower_words),
        }
    return values
