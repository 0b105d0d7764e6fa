"""Looks whether the primary that a standby shall follow is the server whose WAL the stores have."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from wal_pipeline.archive.recovery.restore_plan import RestorePlan
from wal_pipeline.archive.recovery.window import WindowEnd
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.standby.request import StandbyRequest
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.host.file_owner import name_of_user, way_hint
from wal_pipeline.postgres.upstream import Upstream, ask_upstream
from wal_pipeline.wal.names import require_file_name

_ARCHIVE_ALONE: Final = (
    "no primary is named: the standby follows the stores alone, and is as far behind as the last archived segment"
)
_STAYS: Final = "primary_conninfo and primary_slot_name stay as the configuration has them; they are not looked at"
_WRONG: Final = "Let --primary-conninfo lead to the server whose WAL is archived here, or name its cluster."


@dataclass(frozen=True, slots=True)
class PrimaryLook:
    """Holds what was seen of the primary. ``refusals`` keep a standby from being made, ``notes`` are for a person."""

    notes: tuple[str, ...] = ()
    refusals: tuple[RestoreError, ...] = ()


def look_at_primary(prepared: PreparedRestore) -> PrimaryLook:
    """Ask the primary who it is. One that does not answer is no fault: the standby streams once it does."""
    standby = prepared.request.standby
    if standby is None:
        return PrimaryLook()
    notes = [*_plan_notes(prepared.plan), *_timeline_notes(prepared)]
    if prepared.silent:
        notes.append(f"{' and '.join(prepared.silent)} did not answer; the standby asks again while it follows")
    if not standby.conninfo:
        return PrimaryLook((*notes, _STAYS if prepared.request.wal_only else _ARCHIVE_ALONE))
    closed = tuple(_passfile_faults(standby, prepared))
    try:
        found = ask_upstream(standby.parameters, standby.slot)
    except PostgresError as error:
        notes.append(
            f"the primary at {standby.primary} cannot be asked now ({error.message}): whether it is this cluster's is "
            "not known, and the standby follows the stores until it can stream"
        )
        return PrimaryLook(tuple(notes), closed)
    faults = tuple(_faults(found, standby, prepared.plan, prepared.binaries.major))
    return PrimaryLook((*notes, *_upstream_notes(found, standby)), (*closed, *faults))


def _plan_notes(plan: RestorePlan) -> Iterator[str]:
    if plan.window.ended_by is WindowEnd.BREAK:
        yield f"the standby can go on past '{plan.wal[-1].name}' by streaming alone"


def _timeline_notes(prepared: PreparedRestore) -> Iterator[str]:
    timeline = prepared.request.target.timeline
    if timeline != "latest":
        yield (
            f"the standby stays on timeline {timeline}, also where its primary is replaced by a promotion: then "
            "ALTER SYSTEM SET recovery_target_timeline = 'latest'"
        )


def _upstream_notes(found: Upstream, standby: StandbyRequest) -> Iterator[str]:
    kind = "standby" if found.in_recovery else "primary"
    yield f"the {kind} at {standby.primary} answers, on timeline {found.timeline}, at {found.flushed_lsn}"
    if found.has_slot is False:
        yield (
            f"it has no slot '{standby.slot}', without which the standby cannot stream; on the {kind}: "
            f"SELECT pg_create_physical_replication_slot('{standby.slot}', true)"
        )


def _faults(found: Upstream, standby: StandbyRequest, plan: RestorePlan, major: int) -> Iterator[RestoreError]:
    if found.system_identifier != plan.system_identifier:
        yield RestoreError(
            f"the server at {standby.primary} has system identifier {found.system_identifier}, expected "
            f"{plan.system_identifier}",
            hint=_WRONG,
        )
        return
    if found.major != major:
        yield RestoreError(
            f"the server at {standby.primary} is PostgreSQL {found.major}, expected {major}", hint=_WRONG
        )
    if found.timeline < plan.timeline:
        yield RestoreError(
            f"the server at {standby.primary} is on timeline {found.timeline}, and the stores have timeline "
            f"{plan.timeline}, which the standby would follow instead",
            hint=f"Is it the right server? Then --timeline {found.timeline}; else name the one that was promoted.",
        )
    elif found.timeline == plan.timeline and not found.in_recovery and plan.wal:
        last = require_file_name(plan.wal[-1].name)
        size = plan.backup.wal_segment_size
        if last.timeline == found.timeline and found.flushed_lsn < last.end_lsn(size):
            yield RestoreError(
                f"the server at {standby.primary} is at {found.flushed_lsn}, and the stores have its timeline "
                f"{found.timeline} up to {last.end_lsn(size)}: it is not the server that wrote this WAL, or lost some",
                hint="A standby that replays the archived WAL could not follow it.",
            )


def _passfile_faults(standby: StandbyRequest, prepared: PreparedRestore) -> Iterator[RestoreError]:
    """Refuse a password file that the standby's server could not use (libpq: passwordFromFile)."""
    path, uid = standby.passfile, prepared.user.uid
    if path is None:
        return
    name = name_of_user(uid)
    try:
        status = path.stat()
    except OSError as error:
        yield RestoreError(f"the password file '{path}' cannot be looked at: {error.strerror}")
        return
    if status.st_mode & 0o077 or status.st_uid != uid:
        yield RestoreError(
            f"the password file '{path}' is of user '{name_of_user(status.st_uid)}' with mode "
            f"{status.st_mode & 0o777:04o}, and libpq reads only one of the server's own user with mode 0600",
            hint=f"Type: sudo chown {name} {path} && sudo chmod 0600 {path}",
        )
    elif (hint := way_hint([path], uid)) is not None:
        yield RestoreError(f"the user '{name}' cannot reach the password file '{path}'", hint=hint)
